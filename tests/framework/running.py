"""Coroutine functions as tests: each on an event loop of its own, within a bounded time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec

from tests.framework.own_time import OwnTimeLoop

__all__ = ["on_loop"]

P = ParamSpec("P")
_LIMIT_S = 30.0
_OWN_LIMIT_S = 3600.0
"""On a clock that skips waiting for anything but the test."""


def on_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Make a test of a coroutine function."""

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        async def bounded() -> None:
            own = isinstance(asyncio.get_running_loop(), OwnTimeLoop)
            async with asyncio.timeout(_OWN_LIMIT_S if own else _LIMIT_S):
                await test(*arguments, **named)

        asyncio.run(bounded())

    return run
