"""Coroutine functions as tests: each on an event loop of its own, within a bounded time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec

__all__ = ["on_loop"]

P = ParamSpec("P")
_LIMIT_S = 30.0


def on_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Make a test of a coroutine function."""

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(_LIMIT_S):
                await test(*arguments, **named)

        asyncio.run(bounded())

    return run
