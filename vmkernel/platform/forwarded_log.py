"""The host's log, sent to a collector if one is configured; the code for it is loaded only then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from vmkernel.events import EventBus
from vmkernel.model import Finding
from vmkernel.state import StateStore

if TYPE_CHECKING:
    from vmkernel.syslog.feed import LogForwarding

__all__ = ["ForwardedLog"]


class ForwardedLog:
    """Follows the configuration's `network.syslog`."""

    def __init__(self) -> None:
        self._settled = asyncio.Event()
        self._changed = asyncio.Event()
        self._store: StateStore | None = None
        self._events: EventBus | None = None
        self._forwarding: LogForwarding | None = None

    def begin(self, store: StateStore, events: EventBus) -> None:
        """The configuration is known now."""
        self._store, self._events = store, events
        store.on_change(lambda _: self._follow())
        self._settled.set()

    def findings(self) -> tuple[Finding, ...]:
        """A collector that can't be reached."""
        return () if self._forwarding is None else self._forwarding.findings()

    async def run(self) -> None:
        """Forward until cancelled."""
        await self._settled.wait()
        store, events = self._store, self._events
        assert store is not None
        assert events is not None
        while store.config.network.syslog is None:
            self._changed.clear()
            await self._changed.wait()
        if self._forwarding is None:
            from vmkernel.syslog.feed import LogForwarding

            self._forwarding = LogForwarding(events, lambda: store.config.hostname)
        self._follow()
        await self._forwarding.run()

    def _follow(self) -> None:
        self._changed.set()
        if self._forwarding is not None and self._store is not None:
            self._forwarding.retarget(self._store.config.network.syslog)
