"""Awaiting what must not be left half done, and tasks that have an owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["BackgroundTasks", "begun", "run_to_end", "run_to_end_then_cancel"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


async def run_to_end(work: Awaitable[T]) -> T:
    """The result or error of the work, however often we are cancelled meanwhile: the cancellation
    comes too late.

    `Task.cancelling()` still reports it: a task that runs for ever checks that.
    """
    task = asyncio.ensure_future(work)
    await _wait(task)
    return task.result()


async def run_to_end_then_cancel(work: Coroutine[Any, Any, T]) -> T:
    """Await work to its end; if we are cancelled meanwhile, CancelledError comes after it."""
    task = asyncio.ensure_future(work)
    if await _wait(task):
        if not task.cancelled():
            task.exception()  # it has been looked at
        raise asyncio.CancelledError
    return task.result()


async def begun(begin: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]]) -> T:
    """Await work that leaves something behind, which its result names. If we are cancelled
    meanwhile, the work is completed, what it left is removed, and then CancelledError is raised:
    the caller couldn't know what to remove.
    """
    task = asyncio.ensure_future(begin)
    if await _wait(task):
        if not task.cancelled() and task.exception() is None:
            await _wait(asyncio.ensure_future(undo(task.result())))
        raise asyncio.CancelledError
    return task.result()


async def _wait(task: asyncio.Future[Any]) -> bool:
    """Wait for its end; True if we were cancelled meanwhile."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


class BackgroundTasks:
    """Work that runs until it ends or its owner does; a failure is logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[None, None, None], name: str) -> None:
        """Begin some work."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def ended(self, prefix: str = "") -> None:
        """Wait until all has ended that is under way now and named so."""
        tasks = [task for task in self._tasks if task.get_name().startswith(prefix)]
        if tasks:
            await asyncio.wait(tasks)

    def cancel(self) -> None:
        """Tell all to end."""
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s failed", task.get_name(), exc_info=task.exception())
