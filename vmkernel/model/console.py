"""What goes over a VM's serial console, between the vmkernel and whoever shows it.

Its socket keeps the boundaries of messages (SOCK_SEQPACKET). The first octet of a message tells
what follows it:

    DATA     bytes of the line: the guest's output one way, what is typed the other
    CONTROL  JSON: a `ConsoleNotice` from the vmkernel, a `ConsoleAsk` to it

Any number may watch; at most one writes. A stream of VNC has none of this: it is RFB, as it is.
"""

from __future__ import annotations

from vmkernel.model.base import OpenEnum, Record

__all__ = ["CONTROL", "ConsoleAsk", "ConsoleMode", "ConsoleNotice", "DATA", "MAX_CONSOLE_BYTES"]

DATA = b"\0"
CONTROL = b"\1"
MAX_CONSOLE_BYTES = (1 << 16) + 1
"""The longest message, its first octet included."""


class ConsoleMode(OpenEnum):
    """How a client uses a serial line, which any number watch and at most one writes."""

    WRITE = "write"
    """To be its writer, if there is none."""
    WATCH = "watch"
    """To see it only."""
    TAKEOVER = "takeover"
    """To be its writer, whoever is it now."""


class ConsoleAsk(Record, frozen=True, kw_only=True):
    """What a client of a serial console's WebSocket may say as a text message, at any time."""

    mode: ConsoleMode


class ConsoleNotice(Record, frozen=True, kw_only=True):
    """What a serial console's WebSocket says as a text message: whether what is typed here reaches
    the guest; first when it opens, then whenever that changes."""

    writer: bool
    holder: str | None = None
    """Who writes, if it is another client; null: no one."""
