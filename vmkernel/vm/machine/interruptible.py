"""Long work inside the owner task that ends early: at a power-off, or when its asker gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from vmkernel.model import ErrorCode, MicaError
from vmkernel.vm.machine.machine import Machine

__all__ = ["interruptible"]

Outcome = TypeVar("Outcome")


async def interruptible(
    machine: Machine,
    work: Coroutine[Any, Any, Outcome],
    *,
    asked: asyncio.Future[Any] | None = None,
) -> Outcome:
    """The outcome of `work`, which has ended on return; `conflict` if it was interrupted. `asked`
    is what its asker waits for, and cancels to give up."""
    task = asyncio.create_task(work)

    def give_up(future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            task.cancel()

    machine.interruptible = task
    if asked is not None:
        asked.add_done_callback(give_up)
    try:
        await asyncio.wait((task,))
        return task.result()
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait((task,))
        me = asyncio.current_task()
        if me is not None and me.cancelling():
            raise
        raise MicaError(
            ErrorCode.CONFLICT, f"VM {machine.vm_id} received another request in the meantime."
        ) from None
    finally:
        machine.interruptible = None
        if asked is not None:
            asked.remove_done_callback(give_up)
