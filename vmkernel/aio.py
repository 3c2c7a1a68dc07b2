"""Awaiting what must not be left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["begun", "run_to_end", "run_to_end_then_cancel"]

T = TypeVar("T")


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
