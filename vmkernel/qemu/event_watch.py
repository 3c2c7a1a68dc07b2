"""Waiting for QMP events by name, for work that begins something in QEMU and awaits its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from vmkernel.qemu.errors import QmpLostError

__all__ = ["EventWatch", "QmpMessage"]

QmpMessage = Mapping[str, Any]
"""A QMP event as it came: `event`, `data`, `timestamp`."""


class EventWatch:
    """The events of some names that came since the watch began, in order."""

    def __init__(self, name: str, events: frozenset[str]) -> None:
        self._name = name
        self._wanted = events
        self._queue: asyncio.Queue[QmpMessage | None] = asyncio.Queue()

    def offer(self, message: QmpMessage | None) -> None:
        """Take an event where it is wanted; None is the end of the session."""
        if message is None or message.get("event") in self._wanted:
            self._queue.put_nowait(message)

    async def next(self, *, timeout_s: float) -> QmpMessage:
        """The next event. Raises TimeoutError, or QmpLostError once the session has ended."""
        async with asyncio.timeout(timeout_s):
            message = await self._queue.get()
        if message is None:
            self._queue.put_nowait(None)
            raise QmpLostError(f"QEMU of {self._name} is gone.")
        return message
