"""Consoles, the screen and the keyboard of a virtual machine."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from vmkernel.model import ConsoleKind, ConsoleMode, OpenEnum, Record, Timestamp

__all__ = ["ConsoleBody", "ConsoleFraming", "ConsoleQuery", "ConsoleTicket", "KeysBody"]


class ConsoleFraming(OpenEnum):
    """What the messages of a serial line's WebSocket hold."""

    NOTICES = "notices"
    """Binary messages: the line's bytes; text messages: who writes, and the client's requests."""
    RAW = "raw"
    """All messages its bytes, text as UTF-8, as xterm.js' addon-attach and websocat send it."""


class ConsoleBody(Record, frozen=True, kw_only=True):
    """The console that is wanted."""

    kind: ConsoleKind = ConsoleKind.SERIAL
    mode: ConsoleMode = ConsoleMode.WRITE
    """For the serial line: `write` if no other client does, `watch` only, or `takeover` from the
    client that writes now."""
    framing: ConsoleFraming = ConsoleFraming.NOTICES
    """For a serial line: with `raw`, all messages are its bytes, so that nothing reports who
    writes; input while another client writes is discarded."""


class ConsoleTicket(Record, frozen=True, kw_only=True):
    """The right to open one console, once."""

    ticket: str
    """For the query parameter `ticket`; single use."""
    websocket: str
    """The path and query to open on this host by WebSocket."""
    expires_at: Timestamp

    def __repr__(self) -> str:
        return f"ConsoleTicket(expires_at={self.expires_at!r})"


class ConsoleQuery(Record, frozen=True, kw_only=True):
    """What opens a console's WebSocket."""

    ticket: Annotated[str, Meta(min_length=1, max_length=128)]
    """The ticket to open the WebSocket with."""


class KeysBody(Record, frozen=True, kw_only=True):
    """Keys and text to type on a virtual machine's keyboard: first the keys, then the text."""

    keys: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(max_length=32, examples=[["ctrl-alt-delete"]]),
    ] = ()
    """Keys and chords, pressed one after the other: `f2`, `ctrl-alt-delete`. Names are those of
    QEMU (`spc`, `ret`, `pgup`, `meta_l`), and `enter`, `space`, `escape`, `page_up`, `page_down`,
    `windows` and the characters of a US keyboard."""
    text: Annotated[str, Meta(max_length=256)] = ""
    """Typed as on a US keyboard; a line feed is Enter, a tab is Tab."""
