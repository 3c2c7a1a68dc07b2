"""Calls that may hang in the kernel (a dead NFS server), each in its own thread with a time limit.

A thread that hangs can't be ended: it is abandoned, and nothing more is started under its name
until it has returned. Such threads don't occupy places of others, as they would in a pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from vmkernel.host.errors import HostError
from vmkernel.model import ErrorCode

__all__ = ["BlockingCalls"]

T = TypeVar("T")
_MANY = 32


class BlockingCalls:
    """Runs blocking calls under a name; owned by the event loop's thread."""

    def __init__(self) -> None:
        self._hanging: dict[str, threading.Thread] = {}
        self._number = 0

    def hangs(self, name: str) -> bool:
        """True while a call under this name has not returned."""
        thread = self._hanging.get(name)
        if thread is not None and not thread.is_alive():
            del self._hanging[name]
            return False
        return thread is not None

    async def run_beside(
        self, name: str, call: Callable[[], T], *, timeout_s: float, what: str
    ) -> T:
        """Like `run`, for calls of which several may run at once; `timed-out` at once if `_MANY` of
        them hang.
        """
        prefix = f"{name}/"
        threads = {key: t for key, t in self._hanging.items() if key.startswith(prefix)}
        for key, thread in threads.items():
            if not thread.is_alive():
                del self._hanging[key]
        if sum(thread.is_alive() for thread in threads.values()) >= _MANY:
            raise HostError(f"{what} does not answer.", ErrorCode.TIMED_OUT)
        self._number += 1
        key = f"{prefix}{self._number}"
        return await self.run(key, call, timeout_s=timeout_s, what=what)

    async def run(self, name: str, call: Callable[[], T], *, timeout_s: float, what: str) -> T:
        """The result of `call`; `timed-out`, naming `what`, if it takes too long or an earlier one
        still hangs.
        """
        if self.hangs(name):
            raise HostError(f"{what} still does not answer.", ErrorCode.TIMED_OUT)
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(value)  # type: ignore[arg-type]

        def body() -> None:
            value: T | None = None
            error: BaseException | None = None
            try:
                value = call()
            except BaseException as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, value, error)

        thread = threading.Thread(target=body, name=f"bounded-{name}", daemon=True)
        self._hanging[name] = thread
        thread.start()
        try:
            async with asyncio.timeout(timeout_s):
                value = await outcome
        except TimeoutError as error:
            if outcome.done() and not outcome.cancelled():
                raise
            raise HostError(
                f"{what} did not answer within {timeout_s:g} s.", ErrorCode.TIMED_OUT
            ) from error
        finally:
            if outcome.done() and not outcome.cancelled():
                self._hanging.pop(name, None)
        return value
