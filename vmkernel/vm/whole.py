"""Work that must not be left half done because whoever awaits it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["begun", "to_its_end"]

Outcome = TypeVar("Outcome")


async def to_its_end(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Await work to its end; if we are cancelled meanwhile, CancelledError comes after it."""
    task = asyncio.ensure_future(work)
    if await _wait(task):
        if not task.cancelled():
            task.exception()  # it has been looked at
        raise asyncio.CancelledError
    return task.result()


async def begun(
    begin: Coroutine[Any, Any, Outcome], undo: Callable[[Outcome], Awaitable[None]]
) -> Outcome:
    """Await work that leaves something behind, which its outcome names. If we are cancelled
    meanwhile, the work comes to its end, what it left is taken away, and then CancelledError is
    raised: otherwise nobody would know what to take away."""
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
