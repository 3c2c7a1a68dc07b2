"""Console tickets: each holds one opened stream until it is spent once, or 30 s have gone."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from remote_api.auth.bearer import user_of
from remote_api.schema import ApiError
from vmkernel.control import Stream
from vmkernel.model import ConsoleKind, ConsoleMode, ErrorCode

__all__ = ["Opened", "TICKET_LIFE_S", "TicketBox"]

TICKET_LIFE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A console that the vmkernel has opened, and what its user wants of it."""

    vm: str
    kind: ConsoleKind
    mode: ConsoleMode = ConsoleMode.WRITE
    raw: bool = False
    """Whether a serial line's messages are all its bytes."""
    stream: Stream
    token: str | None = field(repr=False)
    """The token that requested it: the console ends with this token."""
    release: Callable[[], None] = field(default=lambda: None, repr=False)
    """Gives back the ticket's place; called once it is spent or void."""

    @property
    def user(self) -> str:
        """The token's ID."""
        return user_of(self.token)


@dataclass(frozen=True, kw_only=True)
class _Held:
    console: Opened
    expiry: asyncio.TimerHandle


class TicketBox:
    """The tickets that were given out and not yet spent. They are kept as hashes only."""

    def __init__(self, *, life_s: float = TICKET_LIFE_S) -> None:
        self._life_s = life_s
        self._held: dict[bytes, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def issue(self, console: Opened) -> str:
        """A new ticket for a console, whose stream the box owns until the ticket is spent."""
        ticket = secrets.token_urlsafe(32)
        key = _key(ticket)
        loop = asyncio.get_running_loop()
        expiry = loop.call_later(self._life_s, self._expire, key)
        self._held[key] = _Held(console=console, expiry=expiry)
        return ticket

    def spend(self, ticket: str, vm: str) -> Opened:
        """The console of a ticket, which is invalid from now on.

        Raises ApiError (401) if the ticket is unknown, spent, expired or for another VM.
        """
        held = self._held.pop(_key(ticket), None)
        if held is not None:
            held.expiry.cancel()
            held.console.release()
            if held.console.vm == vm:
                return held.console
            held.console.stream.close()
        raise ApiError(
            ErrorCode.UNAUTHENTICATED,
            "The ticket is unknown, spent or expired; ask for a new one.",
        )

    def close(self) -> None:
        for key in list(self._held):
            self._expire(key)

    def _expire(self, key: bytes) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            held.expiry.cancel()
            held.console.release()
            held.console.stream.close()


def _key(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
