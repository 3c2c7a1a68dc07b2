"""The protocol of a VM's serial console, between the vmkernel and its clients.

Its socket keeps the boundaries of messages (SOCK_SEQPACKET). The first octet of a message says what
follows it:

    DATA     bytes of the line: the guest's output one way, what is typed the other
    CONTROL  JSON: a `ConsoleNotice` from the vmkernel, a `ConsoleAsk` to it

Any number of clients may watch; at most one writes. A VNC stream is plain RFB, without this
framing.
"""

from __future__ import annotations

from vmkernel.model.base import OpenEnum, Record

__all__ = ["CONTROL", "ConsoleAsk", "ConsoleMode", "ConsoleNotice", "DATA", "MAX_CONSOLE_BYTES"]

DATA = b"\0"
CONTROL = b"\1"
MAX_CONSOLE_BYTES = (1 << 16) + 1
"""The longest message, its first octet included."""


class ConsoleMode(OpenEnum):
    """How a client uses a serial console: any number of clients watch, at most one writes."""

    WRITE = "write"
    """Become the writer if there is none."""
    WATCH = "watch"
    """Only watch."""
    TAKEOVER = "takeover"
    """Become the writer, replacing the present one."""


class ConsoleAsk(Record, frozen=True, kw_only=True):
    """A text message from a client of a serial console's WebSocket, sent at any time."""

    mode: ConsoleMode


class ConsoleNotice(Record, frozen=True, kw_only=True):
    """A text message to a client of a serial console's WebSocket: whether its input reaches the
    guest; sent first, and whenever that changes.
    """

    writer: bool
    holder: str | None = None
    """The client that writes, if it is another one; null if there is none."""
    stalled: bool = False
    """The guest has taken no input for a while: what is typed is dropped until it does. Its
    output goes on."""
