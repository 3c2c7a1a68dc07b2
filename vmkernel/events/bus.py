"""The event bus: publishing never waits, readers follow the ring at their own pace.

An event's id is `<start>-<number>`: the start of this bus in milliseconds, then a running number,
both fixed-width hex, so that ids sort as text within one boot and across restarts of the vmkernel.
A reader that fell behind, or that asks for ids of an earlier process, first gets `events.lost`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Self

from vmkernel import clock
from vmkernel.model import Event, MicaError, Subject
from vmkernel.text import clean

__all__ = ["EventBus", "Subscription"]

_ID = re.compile(r"([0-9a-f]{12})-([0-9a-f]{12})")
_TEXT_MAX = 2000
"""Of a message or one of the data; what others say was cut where it entered."""
Data = Mapping[str, str | int | float | bool | None]


class EventBus:
    """Holds the last events; owned by the event loop's thread."""

    def __init__(self, *, capacity: int = 4096) -> None:
        self._start = f"{int(time.time() * 1000):012x}"
        self._ring: deque[Event] = deque(maxlen=capacity)
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
    ) -> None:
        """Append an event and wake the readers; never blocks."""
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
        self._next += 1
        self._ring.append(event)
        self._wake()

    def subscribe(self, after: str | None = None) -> Subscription:
        """Follow the events after the one with the id `after`, or from now on."""
        if after is None:
            return Subscription(self, self._next, lost=False)
        match = _ID.fullmatch(after)
        if match is None:
            raise MicaError.field("after", f"{after!r} is not the id of an event.")
        number = int(match[2], 16)
        if match[1] != self._start or number >= self._next:
            return Subscription(self, self._first, lost=True)
        return Subscription(self, number + 1, lost=False)

    def subscribe_from_start(self) -> Subscription:
        """Follow the events from the oldest that is still known."""
        return Subscription(self, self._first, lost=False)

    def close(self) -> None:
        """End all subscriptions."""
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

    def _lost(self, missed: int | None) -> Event:
        """The marker of a gap; its id resumes before the oldest event that is left."""
        return Event(
            id=self._id(self._first - 1),
            time=clock.now(),
            type="events.lost",
            subject=Subject(kind="host", id="host"),
            message="Events before this one are no longer known; read the objects again.",
            data={} if missed is None else {"missed": missed},
        )


class Subscription:
    """One reader's place in the ring; iterate it, or use it as a context that ends it."""

    def __init__(self, bus: EventBus, position: int, *, lost: bool) -> None:
        self._bus = bus
        self._position = position
        self._lost = lost
        self._waker = asyncio.Event()
        bus._wakers.add(self._waker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop following."""
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

    def poll(self) -> Event | None:
        """The next event where there is one already."""
        bus = self._bus
        if self._lost:
            self._lost = False
            return bus._lost(None)
        if self._position < bus._first:
            missed = bus._first - self._position
            self._position = bus._first
            return bus._lost(missed)
        if self._position >= bus._next:
            return None
        event = bus._ring[self._position - bus._first]
        self._position += 1
        return event
