"""Consoles, the screen and the keyboard of a virtual machine."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from vmkernel.control.requests.base import Done, Request
from vmkernel.model import ConsoleKind, Record, Role, Slug

__all__ = ["InjectNmi", "OpenConsole", "Screenshot", "SendKeys", "TakeScreenshot"]


class Screenshot(Record, frozen=True, kw_only=True):
    """What a display shows."""

    png: bytes


class OpenConsole(Request[Done], frozen=True, kw_only=True, tag="vm.console"):
    """A VM's serial line or VNC server.

    A serial stream keeps the boundaries of messages, which are those of model/console.py, and
    begins with the scrollback. A VNC stream is RFB as raw bytes in both directions.
    """

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    STREAM: ClassVar[bool] = True

    id: Slug
    kind: ConsoleKind


class TakeScreenshot(Request[Screenshot], frozen=True, kw_only=True, tag="vm.screenshot"):
    """What a VM's first display shows now."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    READ_ONLY: ClassVar[bool] = True
    DISCLOSES: ClassVar[bool] = True

    id: Slug


class SendKeys(Request[Done], frozen=True, kw_only=True, tag="vm.keys"):
    """Press keys and chords of a VM's keyboard, then type a text; the reply comes afterwards."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    keys: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=32)
    ] = ()
    text: Annotated[str, Meta(max_length=256)] = ""

    def __repr__(self) -> str:
        """Without what is typed, which may be a password."""
        return f"SendKeys(id={self.id!r})"


class InjectNmi(Request[Done], frozen=True, kw_only=True, tag="vm.nmi"):
    """Send a VM's processors a non-maskable interrupt."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
