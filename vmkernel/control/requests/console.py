"""Consoles, the screen and the keyboard of a virtual machine."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from vmkernel.control.requests.base import Done, Request
from vmkernel.model import ConsoleKind, Record, Role, Slug

__all__ = ["InjectNmi", "OpenConsole", "Screenshot", "SendKeys", "TakeScreenshot"]


class Screenshot(Record, frozen=True, kw_only=True):
    """A picture of a display."""

    png: bytes


class OpenConsole(Request[Done], frozen=True, kw_only=True, tag="vm.console"):
    """A VM's serial line or VNC server.

    A serial stream keeps message boundaries (messages: model/console.py) and begins with the
    scrollback. A VNC stream is RFB as raw bytes in both directions.
    """

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    STREAM: ClassVar[bool] = True

    id: Slug
    kind: ConsoleKind


class TakeScreenshot(Request[Screenshot], frozen=True, kw_only=True, tag="vm.screenshot"):
    ROLE: ClassVar[Role | None] = Role.OPERATOR
    READ_ONLY: ClassVar[bool] = True
    DISCLOSES: ClassVar[bool] = True

    id: Slug


class SendKeys(Request[Done], frozen=True, kw_only=True, tag="vm.keys"):
    """Press keys and chords of a VM's keyboard, then type a text; the reply comes when that is
    done.
    """

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    keys: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=32)
    ] = ()
    text: Annotated[str, Meta(max_length=256)] = ""

    def __repr__(self) -> str:
        """Without the keys and the text, which may be a password."""
        return f"SendKeys(id={self.id!r})"


class InjectNmi(Request[Done], frozen=True, kw_only=True, tag="vm.nmi"):
    """Send a non-maskable interrupt to a VM's vCPUs."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
