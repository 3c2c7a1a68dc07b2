"""What is forwarded: every line of the journal and every event, from the vmkernel's start on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from vmkernel import clock
from vmkernel.events import EventBus
from vmkernel.host.log_sockets import JOURNAL_PATH, JournalSocket
from vmkernel.model import Finding
from vmkernel.syslog.forwarder import SyslogForwarder
from vmkernel.syslog.message import from_event, from_journal
from vmkernel.syslog.target import parse_target

__all__ = ["LogForwarding"]

_log = logging.getLogger(__name__)


class LogForwarding:
    """Forwards while there is a target; `retarget` may be called at any time."""

    def __init__(
        self, events: EventBus, hostname: Callable[[], str], *, journal: Path = JOURNAL_PATH
    ) -> None:
        self._events = events
        self._hostname = hostname
        self._journal = journal
        self._wish: str | None = None
        self._changed = asyncio.Event()
        self._forwarder: SyslogForwarder | None = None
        self._begun = False

    def retarget(self, target: str | None) -> None:
        """Send to another collector (as in `mica.toml`), or to none."""
        if target != self._wish:
            self._wish = target
            self._changed.set()

    def findings(self) -> tuple[Finding, ...]:
        """What hinders the log from leaving."""
        return () if self._forwarder is None else self._forwarder.findings()

    async def run(self) -> None:
        """Forward until cancelled."""
        while True:
            self._changed.clear()
            target = parse_target(self._wish) if self._wish else None
            if target is None:
                await self._changed.wait()
                continue
            self._forwarder = SyslogForwarder(target, self._hostname)
            try:
                begun, self._begun = self._begun, True
                await self._forward(self._forwarder, from_start=not begun)
            finally:
                self._forwarder = None

    async def _forward(self, forwarder: SyslogForwarder, *, from_start: bool) -> None:
        """Feed one forwarder until there is another target."""
        parts = [
            asyncio.create_task(forwarder.run(), name="syslog: sending"),
            asyncio.create_task(self._feed_events(forwarder, from_start), name="syslog: events"),
            asyncio.create_task(self._feed_lines(forwarder), name="syslog: log lines"),
        ]
        changed = asyncio.create_task(self._changed.wait(), name="syslog: another target")
        try:
            done, _ = await asyncio.wait([*parts, changed], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*parts, changed):
                task.cancel()
            await asyncio.gather(*parts, changed, return_exceptions=True)

    async def _feed_events(self, forwarder: SyslogForwarder, from_start: bool) -> None:
        following = self._events.subscribe_from_start() if from_start else self._events.subscribe()
        with following as events:
            async for event in events:
                forwarder.put(from_event(event))
        await asyncio.Event().wait()  # the bus is closed: the end is near, others send on

    async def _feed_lines(self, forwarder: SyslogForwarder) -> None:
        loop = asyncio.get_running_loop()
        try:
            source = JournalSocket(self._journal)
        except OSError as error:
            _log.warning("log lines are not forwarded, only events: %s", error)
            await asyncio.Event().wait()
            return
        with contextlib.closing(source):
            loop.add_reader(
                source.fileno(),
                source.read,
                lambda line: forwarder.put(from_journal(line, clock.now())),
            )
            try:
                await asyncio.Event().wait()
            finally:
                loop.remove_reader(source.fileno())
