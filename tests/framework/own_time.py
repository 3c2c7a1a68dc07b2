"""An event loop with a clock of its own, on which time passes only while there is nothing to do.

As long as a callback is ready, data waits in a file descriptor or a thread works, the clock does
not move; then it moves to the next timer at once. So a test waits for no time-out, and what it says
of a span of time is as true on a busy machine as on an idle one: "nothing happened within a
minute" means that all which was due within that minute has been done.

What a process outside does is not seen: such tests belong on an ordinary event loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import selectors
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, TypeVarTuple, Unpack

__all__ = ["OwnTimeLoop", "own_time", "quiet"]

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_THREAD_S = 5.0
"""So long in real time a thread is waited for; one that takes longer waits for the loop itself."""


class OwnTimeLoop(asyncio.SelectorEventLoop):
    """See the docstring of the module for its clock."""

    def __init__(self) -> None:
        self._now = 0.0
        self._threads = 0
        self._quiet: list[tuple[int, asyncio.Future[None]]] = []
        super().__init__(_Selector(self._nothing_to_do, lambda: self._threads > 0))
        self._executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="own-time")
        self.set_default_executor(self._executor)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    async def quiet(self, *, held: int = 0) -> None:
        """Wait until nothing more can happen without time passing, but for what `held` threads do
        that the test itself holds up."""
        waiter = self.create_future()
        self._quiet.append((held, waiter))
        # The loop looks again, held-up threads or not.
        self.call_soon(self._look)
        await waiter

    def run_in_executor(
        self,
        executor: concurrent.futures.Executor | None,
        func: Callable[[Unpack[Arguments]], Result],
        *args: *Arguments,
    ) -> asyncio.Future[Result]:
        """As ever; until the thread has ended and its outcome is known here, time is stopped."""
        work = (executor or self._executor).submit(func, *args)
        outcome = asyncio.wrap_future(work, loop=self)
        self._threads += 1

        def ended(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.call_soon_threadsafe(outcome_known)

        def outcome_known() -> None:
            self._threads -= 1

        # Asked for after wrap_future's own callback: the outcome is on its way before this is.
        work.add_done_callback(ended)
        return outcome

    def _look(self) -> None:
        """Do nothing: there is another turn of the loop."""

    def _nothing_to_do(self, due_s: float | None) -> bool:
        """Whatever was ready is done; False if no time may pass yet."""
        for entry in self._quiet:
            held, waiter = entry
            if waiter.done():
                self._quiet.remove(entry)
                return False
            if self._threads <= held:
                self._quiet.remove(entry)
                waiter.set_result(None)
                return False
        if self._threads or due_s is None:
            return True
        self._now += due_s
        return False


class _Selector(selectors.EpollSelector):
    """Asked with a time-out other than 0, the loop has nothing to do before that."""

    def __init__(
        self, nothing_to_do: Callable[[float | None], bool], threads: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._nothing_to_do = nothing_to_do
        self._threads = threads

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if not self._nothing_to_do(timeout):
            return []
        return super().select(_THREAD_S if self._threads() else timeout)


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> OwnTimeLoop:
        return OwnTimeLoop()


@contextlib.contextmanager
def own_time() -> Iterator[None]:
    """Event loops made meanwhile are of this kind."""
    asyncio.set_event_loop_policy(_Policy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(None)


async def quiet(*, held: int = 0) -> None:
    loop: Any = asyncio.get_running_loop()
    assert isinstance(loop, OwnTimeLoop), "this test needs `own_time`"
    await loop.quiet(held=held)
