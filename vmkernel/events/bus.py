"""The event bus: publishing never waits, readers follow the ring at their own pace.

An event's id is `<start>-<number>`: the start of this bus in milliseconds, then a running number,
both fixed-width hex, so that ids sort as text within one boot and across restarts of the vmkernel.
A reader that fell behind, or that asks for ids of an earlier process, first gets `events.lost`.
Whoever lists objects and then follows the events after `position`, taken before the list was read,
misses no change: services change their state first and publish then.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Self

import msgspec

from vmkernel import clock
from vmkernel.events.filter import EVERYTHING, EventFilter, Labels
from vmkernel.events.objects import ObjectReaders, as_object, encode_object
from vmkernel.model import ErrorCode, Event, MicaError, Record, Role, Subject
from vmkernel.text import clean

__all__ = ["EventBus", "Subscription"]

_ID = re.compile(r"([0-9a-f]{12})-([0-9a-f]{12})")
_TEXT_MAX = 2000
"""The longest message or data value; texts from others were cut where they entered."""
_OBJECTS_BYTES = 8 << 20
"""Of all objects in the ring: 2 KiB for each of 4,096 events. Beyond it the oldest go without."""
_PASSED_OVER = 1024
"""After this many unwanted events a reader gets its position: a quarter of the ring,
so that it can reconnect without a gap."""
Data = Mapping[str, str | int | float | bool | None]
_SUBJECT_HOST = Subject(kind="host", id="host")


@dataclass
class _Entry:
    event: Event
    labels: tuple[Labels, ...]
    encoded: bytes | None
    """The object after the change."""


class EventBus:
    """Holds the last events; owned by the event loop's thread."""

    def __init__(self, *, capacity: int = 4096, objects_bytes: int = _OBJECTS_BYTES) -> None:
        self.objects = ObjectReaders()
        self._objects_bytes = objects_bytes
        self._held_bytes = 0
        self._with_objects: deque[_Entry] = deque()
        self._observers: list[Callable[[Event, tuple[Labels, ...]], None]] = []
        self._start = f"{int(time.time() * 1000):012x}"
        self._ring: deque[_Entry] = deque(maxlen=capacity)
        self._next = 1
        self._wakers: set[asyncio.Event] = set()
        self._closed = False

    def publish(
        self,
        event_type: str,
        subject: Subject,
        *,
        message: str = "",
        data: Data | None = None,
        actor: str | None = None,
        before: Record | None = None,
    ) -> None:
        """Append an event and wake the readers; never blocks.

        `before` is the object as it was, if it is gone now or may have had other labels.
        """
        event = Event(
            id=self._id(self._next),
            time=clock.now(),
            type=event_type,
            subject=subject,
            actor=actor,
            message=clean(message, _TEXT_MAX),
            data={
                key: clean(value, _TEXT_MAX) if isinstance(value, str) else value
                for key, value in (data or {}).items()
            },
        )
        after = None if event_type.startswith("audit.") else self.objects.now(subject)
        before = None if before is None else self.objects.shown(subject, before)
        shown = after or before
        labels = tuple(filter(None, map(_labels_of, (before, after))))
        entry = _Entry(event, labels, None if shown is None else encode_object(shown))
        self._next += 1
        self._ring.append(entry)
        self._keep_object(entry)
        for observe in self._observers:
            observe(self._shown(entry, Role.VIEWER), labels)
        self._wake()

    @property
    def position(self) -> str:
        """The id of the last event; what follows it has not happened yet."""
        return self._id(self._next - 1)

    def observe(self, observe: Callable[[Event, tuple[Labels, ...]], None]) -> None:
        """Be called within each `publish`, with what a viewer sees and the object's labels; for
        what must not lose an event if this process ends."""
        self._observers.append(observe)

    def subscribe(
        self,
        after: str | None = None,
        wanted: EventFilter = EVERYTHING,
        *,
        role: Role | None = None,
        gapless: bool = False,
    ) -> Subscription:
        """Follow the events after the one with the id `after`, or from now on.

        `role` decides which objects it brings. With `gapless`, an `after` that is no longer known
        raises MicaError (`gone`).
        """
        if after is None:
            return Subscription(self, self._next, wanted, role)
        match = _ID.fullmatch(after)
        if match is None:
            raise MicaError.field("after", f"{after!r} is not the id of an event.")
        number = int(match[2], 16)
        known = match[1] == self._start and number < self._next
        if gapless and not (known and number + 1 >= self._first):
            raise MicaError(
                ErrorCode.GONE,
                f"The events after {after} are no longer known; list the objects again, and follow"
                " from the event ID of that answer.",
            )
        if not known:
            return Subscription(self, self._first, wanted, role, lost=True)
        return Subscription(self, number + 1, wanted, role)

    def subscribe_from_start(self) -> Subscription:
        """Follow the events from the oldest that is still known."""
        return Subscription(self, self._first)

    def close(self) -> None:
        self._closed = True
        self._wake()

    @property
    def _first(self) -> int:
        return self._next - len(self._ring)

    def _id(self, number: int) -> str:
        return f"{self._start}-{number:012x}"

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    def _keep_object(self, entry: _Entry) -> None:
        """Hold it as long as there is room; the oldest goes first."""
        if entry.encoded is None:
            return
        self._with_objects.append(entry)
        self._held_bytes += len(entry.encoded)
        first = self._ring[0].event.id
        while self._with_objects and (
            self._held_bytes > self._objects_bytes or self._with_objects[0].event.id < first
        ):
            oldest = self._with_objects.popleft()
            self._held_bytes -= len(oldest.encoded or b"")
            oldest.encoded = None

    def _shown(self, entry: _Entry, role: Role | None) -> Event:
        if entry.encoded is None or not self.objects.may_read(entry.event.subject, role):
            return entry.event
        return msgspec.structs.replace(entry.event, object=as_object(entry.encoded))

    def _mark(self, position: int) -> Event:
        """Says that a reader is up to the event with this number."""
        return Event(
            id=self._id(position),
            time=clock.now(),
            type="events.position",
            subject=_SUBJECT_HOST,
        )

    def _lost(self, missed: int | None) -> Event:
        """The marker of a gap; its id resumes before the oldest event that is left."""
        return Event(
            id=self._id(self._first - 1),
            time=clock.now(),
            type="events.lost",
            subject=_SUBJECT_HOST,
            message="Events before this one are no longer known; read the objects again.",
            data={} if missed is None else {"missed": missed},
        )


def _labels_of(record: Record | None) -> Labels | None:
    return getattr(getattr(record, "spec", None), "labels", None)


class Subscription:
    """One reader's place in the ring; iterate it, or use it as a context that ends it."""

    def __init__(
        self,
        bus: EventBus,
        position: int,
        wanted: EventFilter = EVERYTHING,
        role: Role | None = None,
        *,
        lost: bool = False,
    ) -> None:
        self._bus = bus
        self._position = position
        self._wanted = wanted
        self._role = role
        self._lost = lost
        self._passed_over = 0
        self._waker = asyncio.Event()
        bus._wakers.add(self._waker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._bus._wakers.discard(self._waker)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self.next()) is not None:
            yield event

    async def next(self) -> Event | None:
        """The next event; None once the bus is closed and everything has been read."""
        while True:
            event = self.poll()
            if event is not None or self._bus._closed:
                return event
            self._waker.clear()
            await self._waker.wait()

    async def next_with_object(self) -> Event | None:
        """The same, with the objects that have to be read first."""
        event = await self.next()
        objects = self._bus.objects
        if event is None or event.object is not None or event.type.startswith("audit."):
            return event
        if not objects.may_read(event.subject, self._role):
            return event
        found = await objects.later(event.subject)
        return event if found is None else msgspec.structs.replace(event, object=found)

    def poll(self) -> Event | None:
        """The next event if there is one already."""
        bus = self._bus
        if self._lost:
            self._lost = False
            return bus._lost(None)
        if self._position < bus._first:
            missed = bus._first - self._position
            self._position = bus._first
            return bus._lost(missed)
        while self._position < bus._next:
            entry = bus._ring[self._position - bus._first]
            self._position += 1
            if self._wanted.passes(entry.event, entry.labels):
                self._passed_over = 0
                return bus._shown(entry, self._role)
            self._passed_over += 1
            if self._passed_over >= _PASSED_OVER:
                self._passed_over = 0
                return bus._mark(self._position - 1)
        return None
