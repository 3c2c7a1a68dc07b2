"""The objects that events are about, as their GET answers them to a viewer.

A kind's reader is given when its service is there. What can be read at once is kept with the event
as it was after the change; what needs a look at a disk is read when the event is sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from vmkernel.model import MicaError, Record, Role, Subject

__all__ = ["MAX_OBJECT_BYTES", "ObjectReaders", "as_object", "encode_object"]

_log = logging.getLogger(__name__)

MAX_OBJECT_BYTES = 16 << 10
"""Of an object in an event: a usual VM has 1 to 2 KiB, and the ring holds thousands."""
_READ_TIMEOUT_S = 2.0
"""A datastore that doesn't answer must not hold a stream of events up."""

Read = Callable[[str], Record]
ReadLater = Callable[[str], Awaitable[Record]]
Conceal = Callable[[Any], Record]


@dataclass(frozen=True)
class _Reader:
    role: Role
    at_once: Read | None = None
    later: ReadLater | None = None
    conceal: Conceal = lambda record: record


class ObjectReaders:
    """How to read an object, by the kind of subject."""

    def __init__(self) -> None:
        self._readers: dict[str, _Reader] = {}

    def add(
        self,
        kind: str,
        read: Read,
        *,
        role: Role = Role.VIEWER,
        conceal: Conceal = lambda record: record,
    ) -> None:
        """What `read` returns is shown to whoever has the role, without the secrets that `conceal`
        takes out; it raises MicaError for what isn't there."""
        self._readers[kind] = _Reader(role, at_once=read, conceal=conceal)

    def add_later(self, kind: str, read: ReadLater, *, role: Role = Role.VIEWER) -> None:
        """The same for what can't be read at once."""
        self._readers[kind] = _Reader(role, later=read)

    def now(self, subject: Subject) -> Record | None:
        """The object as it is, if it can be read at once."""
        reader = self._readers.get(subject.kind)
        if reader is None or reader.at_once is None:
            return None
        try:
            return reader.conceal(reader.at_once(subject.id))
        except MicaError:
            return None
        except Exception:
            # An event is told whatever happens to what it is about.
            _log.exception("%s %s can't be shown in an event", subject.kind, subject.id)
            return None

    def shown(self, subject: Subject, record: Record) -> Record | None:
        """An object that was given with an event, without its secrets; None if its kind is not
        known."""
        reader = self._readers.get(subject.kind)
        return None if reader is None else reader.conceal(record)

    def may_read(self, subject: Subject, role: Role | None) -> bool:
        """Whether a reader of events with this role may see such an object."""
        reader = self._readers.get(subject.kind)
        return reader is not None and role is not None and role.includes(reader.role)

    async def later(self, subject: Subject) -> dict[str, Any] | None:
        """The object as it is now, of a kind that can't be read at once."""
        reader = self._readers.get(subject.kind)
        if reader is None or reader.later is None:
            return None
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                found = await reader.later(subject.id)
        except (MicaError, TimeoutError):
            return None
        encoded = encode_object(found)
        return None if encoded is None else as_object(encoded)


def encode_object(record: Record) -> bytes | None:
    """An object as it is kept with its event; None if it is too large."""
    encoded = msgspec.msgpack.encode(record)
    return encoded if len(encoded) <= MAX_OBJECT_BYTES else None


def as_object(encoded: bytes) -> dict[str, Any]:
    """What is kept of an object, as an event brings it."""
    return msgspec.msgpack.decode(encoded, type=dict[str, Any])
