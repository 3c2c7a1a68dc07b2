"""Waiting for what storage itself does to an object for a moment: a client that comes in that
moment need not know of it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from vmkernel.storage.errors import BrieflyBusy

__all__ = ["patient"]

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE_S = 10.0
"""A description is written in milliseconds, on a busy NFS server in seconds; a client's own
time-outs are longer."""
_PAUSE_S = 0.02


def patient(request: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Try a request again, as a whole, while what it needs is briefly busy; one that isn't free
    within the time fails as it would have at once. A request that fails so has changed nothing."""

    @functools.wraps(request)
    async def tried(*args: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + _PATIENCE_S
        while True:
            try:
                return await request(*args, **named)
            except BrieflyBusy:
                if loop.time() >= end_s:
                    raise
            await asyncio.sleep(_PAUSE_S)

    return tried
