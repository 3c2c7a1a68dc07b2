"""Tickets for event streams: a browser's `EventSource` sends no token, and reconnects by itself.

issued -> opened (within 30 s) -> stream ends -> opened again (within 60 s) -> …
                                       |-> void: not in time, opened 240 times, or 12 h old
A ticket has one stream at a time: one that is opened ends the one before, which a browser that
lost its connection has given up. What it may see is what its token may, at each moment.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from remote_api.schema import ApiError
from vmkernel.model import ErrorCode

__all__ = ["EVENT_TICKET_LIFE_S", "EventTickets", "FIRST_USE_S", "OpenedStream"]

FIRST_USE_S = 30.0
_NEXT_USE_S = 60.0
"""Longer than a browser waits between its attempts, also after a change of networks."""
EVENT_TICKET_LIFE_S = 12 * 3600.0
"""A working day; then the page asks for another with its user's token."""
_MAX_USES = 240
"""One each three minutes of that time."""


@dataclass
class OpenedStream:
    """One stream of a ticket."""

    token: str | None = field(repr=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the ticket is opened again, or void: the stream ends then."""


@dataclass
class _Ticket:
    token: str | None = field(repr=False)
    release: Callable[[], None] = field(repr=False)
    life: asyncio.TimerHandle
    idle: asyncio.TimerHandle | None = None
    stream: OpenedStream | None = None
    uses: int = 0


class EventTickets:
    """Those that are good now, kept as hashes only; owned by the event loop's thread."""

    def __init__(
        self,
        *,
        first_use_s: float = FIRST_USE_S,
        next_use_s: float = _NEXT_USE_S,
        life_s: float = EVENT_TICKET_LIFE_S,
        max_uses: int = _MAX_USES,
    ) -> None:
        self._first_use_s = first_use_s
        self._next_use_s = next_use_s
        self._life_s = life_s
        self._max_uses = max_uses
        self._tickets: dict[bytes, _Ticket] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, token: str | None, release: Callable[[], None]) -> str:
        """A new ticket in the name of a token; `release` is called once it is void."""
        text = secrets.token_urlsafe(32)
        key = _key(text)
        loop = asyncio.get_running_loop()
        self._tickets[key] = _Ticket(
            token=token,
            release=release,
            life=loop.call_later(self._life_s, self._void, key),
            idle=loop.call_later(self._first_use_s, self._void, key),
        )
        return text

    def token_of(self, text: str) -> str | None:
        """In whose name a ticket is. Raises ApiError (401) if it is not good, or no longer."""
        return self._good(_key(text)).token

    def _good(self, key: bytes) -> _Ticket:
        ticket = self._tickets.get(key)
        if ticket is not None and ticket.uses >= self._max_uses:
            self._void(key)
            ticket = None
        if ticket is None:
            raise ApiError(
                ErrorCode.UNAUTHENTICATED,
                "The ticket is unknown, expired or was used too often; ask for a new one.",
            )
        return ticket

    def open(self, text: str) -> OpenedStream:
        """Begin a stream. Raises ApiError (401) if the ticket is not good, or no longer."""
        key = _key(text)
        ticket = self._good(key)
        if ticket.idle is not None:
            ticket.idle.cancel()
            ticket.idle = None
        if ticket.stream is not None:
            ticket.stream.ended.set()
        ticket.uses += 1
        ticket.stream = OpenedStream(token=ticket.token)
        return ticket.stream

    def close(self, text: str, stream: OpenedStream) -> None:
        """A stream has ended; the ticket may be opened again for a while."""
        key = _key(text)
        ticket = self._tickets.get(key)
        if ticket is None or ticket.stream is not stream:
            return
        ticket.stream = None
        loop = asyncio.get_running_loop()
        ticket.idle = loop.call_later(self._next_use_s, self._void, key)

    def _void(self, key: bytes) -> None:
        ticket = self._tickets.pop(key, None)
        if ticket is None:
            return
        ticket.life.cancel()
        if ticket.idle is not None:
            ticket.idle.cancel()
        if ticket.stream is not None:
            ticket.stream.ended.set()
        ticket.release()


def _key(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
