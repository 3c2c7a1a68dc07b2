"""Waiting for QMP events by name, for work that starts something in QEMU and awaits its end."""

from __future__ import annotations

import asyncio

from vmkernel.qemu.errors import QmpLostError
from vmkernel.qemu.link import QmpMessage

__all__ = ["EventWatch"]

_MAX = 64
"""The events that are watched arrive one by one; more at once add no information."""


class EventWatch:
    """The events of some names that came since the watch began, in order; if `_MAX` of them wait,
    further ones are dropped.
    """

    def __init__(self, name: str, events: frozenset[str]) -> None:
        self._name = name
        self._wanted = events
        self._queue: asyncio.Queue[QmpMessage | None] = asyncio.Queue()

    def offer(self, message: QmpMessage | None) -> bool:
        """Take an event if it is wanted, and return True then; None is the end of the session."""
        if message is None:
            self._queue.put_nowait(None)
            return True
        if message.event not in self._wanted or self._queue.qsize() >= _MAX:
            return False
        self._queue.put_nowait(message)
        return True

    async def next(self, *, timeout_s: float) -> QmpMessage:
        """The next event. Raises TimeoutError, or QmpLostError once the session has ended."""
        async with asyncio.timeout(timeout_s):
            message = await self._queue.get()
        if message is None:
            self._queue.put_nowait(None)
            raise QmpLostError(f"QEMU of {self._name} is gone.")
        return message
