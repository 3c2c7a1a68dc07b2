"""Awaiting what must not be left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["run_to_end"]

T = TypeVar("T")


async def run_to_end(work: Awaitable[T]) -> T:
    """The outcome of the work, a result or an error, however often we are cancelled meanwhile: who
    cancels comes too late.

    `Task.cancelling()` still tells that it was asked for: a task that goes on for ever looks there.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue  # ours, or the work's own: then it is done
        except Exception:
            break
    return task.result()
