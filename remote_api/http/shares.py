"""Limits of long-lived things per user and per address: streams, consoles, bodies.

Each kind has `total` places, of which a user gets `per_user` and an address (of IPv6 a /64)
`per_origin`; so one user's streams leave places for others. A user without a free place gets 429
with their number; if all are taken, 503.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from remote_api.http.sources import source_of
from remote_api.schema import ApiError
from vmkernel.model import ErrorCode

__all__ = ["AllShares", "Shares"]

_RETRY_S = 2


@dataclass
class Shares:
    """The places of one kind."""

    what: str
    """In the plural, for messages."""
    total: int
    per_user: int
    per_origin: int
    unit: int = 1
    """What one is in messages: 1, or the bytes of a MiB."""
    _taken: int = 0
    _users: Counter[str] = field(default_factory=Counter)
    _origins: Counter[str] = field(default_factory=Counter)

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self._taken

    def check(self, user: str, origin: str, *, weight: int = 1) -> None:
        """Raise ApiError (429, 503) if there is no place."""
        source = source_of(origin)
        for mine, most, whose in (
            (self._users[user], self.per_user, f"the token {user}"),
            (self._origins[source], self.per_origin, f"the address {source or 'unknown'}"),
        ):
            if mine + weight > most:
                raise ApiError(
                    ErrorCode.RATE_LIMITED,
                    f"{whose[:1].upper()}{whose[1:]} has {mine // self.unit} {self.what} of at"
                    f" most {most // self.unit}; end one, or try again when one has ended.",
                    retry_after_s=_RETRY_S,
                )
        if self._taken + weight > self.total:
            raise ApiError(
                ErrorCode.UNAVAILABLE,
                f"All {self.total // self.unit} {self.what} of this host are taken; try again in a"
                " moment.",
                retry_after_s=_RETRY_S,
            )

    def take(self, user: str, origin: str, *, weight: int = 1) -> Callable[[], None]:
        """Occupy a place; call the result to free it (once). Raises ApiError (429, 503)."""
        self.check(user, origin, weight=weight)
        source = source_of(origin)
        self._count(user, source, weight)
        taken = True

        def release() -> None:
            nonlocal taken
            if taken:
                taken = False
                self._count(user, source, -weight)

        return release

    @contextmanager
    def hold(self, user: str, origin: str, *, weight: int = 1) -> Iterator[None]:
        """A place for as long as the context lasts. Raises ApiError (429, 503)."""
        release = self.take(user, origin, weight=weight)
        try:
            yield
        finally:
            release()

    def _count(self, user: str, source: str, weight: int) -> None:
        self._taken += weight
        for counter, key in ((self._users, user), (self._origins, source)):
            counter[key] += weight
            if not counter[key]:
                del counter[key]


@dataclass
class AllShares:
    """Every kind of thing that lasts."""

    uploads: Shares = field(default_factory=lambda: Shares("uploads under way", 24, 8, 16))
    downloads: Shares = field(default_factory=lambda: Shares("downloads under way", 32, 8, 16))
    events: Shares = field(default_factory=lambda: Shares("event streams", 96, 16, 32))
    tickets: Shares = field(default_factory=lambda: Shares("unused console tickets", 96, 16, 32))
    event_tickets: Shares = field(default_factory=lambda: Shares("event tickets", 96, 16, 32))
    consoles: Shares = field(default_factory=lambda: Shares("open consoles", 96, 16, 32))
    bodies: Shares = field(
        default_factory=lambda: Shares(
            "MiB of large requests", 48 << 20, 12 << 20, 24 << 20, unit=1 << 20
        )
    )
    """By bytes; small ones, which anyone may send, are not counted. The largest has 10 MiB."""
    answers: Shares = field(
        default_factory=lambda: Shares(
            "MiB of answers that are being read", 64 << 20, 16 << 20, 32 << 20, unit=1 << 20
        )
    )
    """By bytes; an answer has at most 16 MiB (a frame of the control socket)."""
