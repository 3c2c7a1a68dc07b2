"""How many programs work on data at once: a few in total, in turn for all users.

Copies may take hours, so one place is always reserved for quick work (inspecting a file, a
snapshot). Places are given to the waiting users in turn, and for each user first come, first
served: a user with many requests doesn't delay others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass

from vmkernel.host.errors import HostError
from vmkernel.model import ErrorCode

__all__ = ["Asker", "WorkPlaces", "asked_by"]

_COUNT = 4
"""Each takes a core and some 100 MiB, and four saturate a disk."""
_LONG_WAIT_S = 4 * 3600.0
_QUICK_WAIT_S = 300.0


@dataclass(frozen=True)
class Asker:
    """On whose behalf work is done, and how it is notified that it waits."""

    name: str = ""
    on_wait: Callable[[], None] = lambda: None


asked_by: ContextVar[Asker] = ContextVar("asked_by")
"""Set by what begins an operation."""


@dataclass(eq=False)
class _Waiting:
    long: bool
    turn: asyncio.Future[None]


class WorkPlaces:
    """Owned by the event loop's thread."""

    def __init__(self, count: int = _COUNT) -> None:
        self._count = count
        self._running = 0
        self._running_long = 0
        self._waiting: dict[str, deque[_Waiting]] = {}

    @contextlib.asynccontextmanager
    async def taken(self, *, long: bool, wait_s: float | None = None) -> AsyncIterator[None]:
        """Occupy a place; `unavailable` if none becomes free in time."""
        await self._take(long, wait_s or (_LONG_WAIT_S if long else _QUICK_WAIT_S))
        try:
            yield
        finally:
            self._give_back(long)

    async def _take(self, long: bool, wait_s: float) -> None:
        if not self._waiting and self._free(long):
            self._count_in(long)
            return
        asker = asked_by.get(Asker())
        mine = _Waiting(long, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(asker.name, deque()).append(mine)
        self._hand_out()
        if not mine.turn.done():
            asker.on_wait()
        try:
            async with asyncio.timeout(wait_s):
                await mine.turn
        except BaseException as error:
            if mine.turn.done() and not mine.turn.cancelled():
                self._give_back(long)  # it was our turn just as we gave up
            else:
                self._leave(asker.name, mine)
            if isinstance(error, TimeoutError):
                raise HostError(
                    f"{self._count} copies and checks of disks were under way for"
                    f" {wait_s / 60:g} minutes; try again when some of them have ended.",
                    ErrorCode.UNAVAILABLE,
                ) from error
            raise

    def _free(self, long: bool) -> bool:
        if self._running >= self._count:
            return False
        return not long or self._running_long < max(1, self._count - 1)

    def _count_in(self, long: bool) -> None:
        self._running += 1
        self._running_long += long

    def _give_back(self, long: bool) -> None:
        self._running -= 1
        self._running_long -= long
        self._hand_out()

    def _leave(self, name: str, waiting: _Waiting) -> None:
        queue = self._waiting.get(name)
        if queue is not None:
            with contextlib.suppress(ValueError):
                queue.remove(waiting)
            if not queue:
                del self._waiting[name]

    def _hand_out(self) -> None:
        while (name := self._next()) is not None:
            queue = self._waiting.pop(name)
            mine = next(waiting for waiting in queue if self._free(waiting.long))
            queue.remove(mine)
            if queue:
                self._waiting[name] = queue  # behind all others
            if not mine.turn.done():
                self._count_in(mine.long)
                mine.turn.set_result(None)

    def _next(self) -> str | None:
        """Whose turn it is: the waiting user who was served longest ago."""
        for name, queue in self._waiting.items():
            if any(self._free(waiting.long) for waiting in queue):
                return name
        return None
