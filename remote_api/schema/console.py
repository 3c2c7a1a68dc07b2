"""Consoles, the screen and the keyboard of a virtual machine."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Timestamp, WireEnum, WireModel

__all__ = [
    "ConsoleAsk",
    "ConsoleBody",
    "ConsoleFraming",
    "ConsoleKind",
    "ConsoleMode",
    "ConsoleNotice",
    "ConsoleQuery",
    "ConsoleTicket",
    "KeysBody",
]


class ConsoleKind(WireEnum):
    """The stream that a console opens."""

    SERIAL = "serial"
    VNC = "vnc"


class ConsoleMode(WireEnum):
    """What somebody wants of a serial line, which any number watch and at most one writes."""

    WRITE = "write"
    """To be its writer, where nobody else is."""
    WATCH = "watch"
    """To see it only."""
    TAKEOVER = "takeover"
    """To be its writer, whoever is it now."""


class ConsoleFraming(WireEnum):
    """What the messages of a serial line's WebSocket hold."""

    NOTICES = "notices"
    """Binary messages its bytes; text messages who writes, and what the client asks for."""
    RAW = "raw"
    """All messages its bytes, text as UTF-8, as xterm.js' addon-attach and websocat send it."""


class ConsoleBody(WireModel, frozen=True, kw_only=True):
    """The console that is wanted."""

    kind: ConsoleKind = ConsoleKind.SERIAL
    mode: Annotated[
        ConsoleMode,
        Meta(
            description="For the serial line: `write` where nobody else does, `watch` only, or"
            " `takeover` from whoever writes now."
        ),
    ] = ConsoleMode.WRITE
    framing: Annotated[
        ConsoleFraming,
        Meta(
            description="For the serial line: `raw` makes all messages its bytes, so that nothing"
            " says who writes; what is typed while another writes is dropped."
        ),
    ] = ConsoleFraming.NOTICES


class ConsoleAsk(WireModel, frozen=True, kw_only=True):
    """What a client of a serial console's WebSocket may say as a text message, at any time."""

    mode: ConsoleMode


class ConsoleNotice(WireModel, frozen=True, kw_only=True):
    """What a serial console's WebSocket says as a text message: whether what is typed here
    reaches the guest; first when it opens, then whenever that changes."""

    writer: bool
    holder: Annotated[
        str | None, Meta(description="Who writes, where it is somebody else; null: nobody.")
    ] = None


class ConsoleTicket(WireModel, frozen=True, kw_only=True):
    """The right to open one console, once."""

    ticket: Annotated[str, Meta(description="For the query parameter `ticket`; single use.")]
    websocket: Annotated[
        str, Meta(description="The path and query to open on this host by WebSocket.")
    ]
    expires_at: Timestamp

    def __repr__(self) -> str:
        """Without the ticket."""
        return f"ConsoleTicket(expires_at={self.expires_at!r})"


class ConsoleQuery(WireModel, frozen=True, kw_only=True):
    """What opens a console's WebSocket."""

    ticket: Annotated[str, Meta(min_length=1, max_length=128, description="The ticket.")]


class KeysBody(WireModel, frozen=True, kw_only=True):
    """What is pressed on a virtual machine's keyboard: first the keys, then the text."""

    keys: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(
            max_length=32,
            description="Keys and chords, pressed one after the other: `f2`, `ctrl-alt-delete`."
            " Names are those of QEMU (`spc`, `ret`, `pgup`, `meta_l`), and `enter`, `space`,"
            " `escape`, `page_up`, `page_down`, `windows` and the characters of a US keyboard.",
            examples=[["ctrl-alt-delete"]],
        ),
    ] = ()
    text: Annotated[
        str,
        Meta(
            max_length=256,
            description="Typed as on a US keyboard; a line feed is Enter, a tab is Tab.",
        ),
    ] = ""
