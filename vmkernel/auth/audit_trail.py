"""The audit trail's memory: a bounded number of records that no one actor can push out.

Repetitions (the same request by the same actor from the same address about the same object, with
the same outcome) within COALESCE_S are one record with a count. When a part is full, the actor with
the most records there loses its oldest one, so that an actor with many records replaces its own.
Requests without a token have a separate part, in which an address (of IPv6 a /64) is an actor:
refused requests without a token never push out the records of tokens.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from vmkernel import clock
from vmkernel.auth.caller import ANONYMOUS
from vmkernel.auth.origins import network_of
from vmkernel.model import AuditOutcome, AuditRecord, ErrorCode, Subject

__all__ = ["AuditTrail"]

COALESCE_S = 300.0
_RECORDS = 4096
_STRANGERS_RECORDS = 1024
"""About 1 KiB each with its strings: 5 MiB together at most."""
_TEXT = 256
"""The longest texts, of those whose length the sender controls."""

_Key = tuple[str | None, ...]


@dataclass
class _Entry:
    key: _Key
    began_s: float
    record: AuditRecord


class _Room:
    """Records by actor, oldest first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._count = 0
        self._actors: dict[str, deque[_Entry]] = {}
        self._newest: dict[tuple[str, _Key], _Entry] = {}

    def find(self, actor: str, key: _Key) -> _Entry | None:
        """The newest record of a key."""
        return self._newest.get((actor, key))

    def add(self, actor: str, entry: _Entry) -> None:
        """A new record; if there are too many then, the oldest of the actor with the most goes."""
        self._actors.setdefault(actor, deque()).append(entry)
        self._newest[actor, entry.key] = entry
        self._count += 1
        if self._count > self._capacity:
            most = max(self._actors, key=lambda name: len(self._actors[name]))
            gone = self._actors[most].popleft()
            if self._newest[most, gone.key] is gone:
                del self._newest[most, gone.key]
            if not self._actors[most]:
                del self._actors[most]
            self._count -= 1

    def all(self) -> Iterator[AuditRecord]:
        for own in self._actors.values():
            for entry in own:
                yield entry.record


class AuditTrail:
    """Owned by the event loop's thread."""

    def __init__(
        self,
        *,
        capacity: int = _RECORDS,
        strangers_capacity: int = _STRANGERS_RECORDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = _Room(capacity)
        self._strangers = _Room(strangers_capacity)
        self._monotonic = monotonic
        self._start = f"{int(time.time() * 1000):012x}"
        self._next = 1

    def record(
        self,
        outcome: AuditOutcome,
        request: str,
        subject: Subject,
        *,
        actor: str,
        origin: str,
        code: ErrorCode | None = None,
        message: str = "",
    ) -> None:
        """Record a request and its result."""
        stranger = actor == ANONYMOUS
        room = self._strangers if stranger else self._known
        owner = network_of(origin) if stranger else actor
        place = owner if stranger else origin
        key = (outcome, request, subject.kind, subject.id, place, code)
        moment_s, now = self._monotonic(), clock.now()
        found = room.find(owner, key)
        if found is not None and moment_s - found.began_s < COALESCE_S:
            found.record = msgspec.structs.replace(
                found.record, last_at=now, count=found.record.count + 1, message=message[:_TEXT]
            )
            return
        record = AuditRecord(
            id=f"{self._start}-{self._next:012x}",
            outcome=outcome,
            request=request,
            subject=Subject(kind=subject.kind, id=subject.id[:_TEXT]),
            actor=actor[:_TEXT],
            origin=origin[:_TEXT],
            first_at=now,
            last_at=now,
            code=code,
            message=message[:_TEXT],
        )
        self._next += 1
        room.add(owner, _Entry(key, moment_s, record))

    def list(
        self,
        *,
        before: str | None,
        limit: int,
        actor: str | None = None,
        outcome: AuditOutcome | None = None,
    ) -> tuple[tuple[AuditRecord, ...], bool]:
        """Records from the newest on, after the one with the id `before`; whether others follow."""
        found = heapq.nlargest(
            limit + 1,
            (
                record
                for room in (self._known, self._strangers)
                for record in room.all()
                if (before is None or record.id < before)
                and (actor is None or record.actor == actor)
                and (outcome is None or record.outcome is outcome)
            ),
            key=lambda record: record.id,
        )
        return tuple(found[:limit]), len(found) > limit
