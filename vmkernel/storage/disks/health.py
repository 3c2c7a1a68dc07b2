"""The health of the host's disks: read in the background, shown from memory.

Every disk is read soon after it appeared, then every half hour, one after the other; a sleeping one
keeps its last values. Lists of disks never wait for one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator

import msgspec

from vmkernel import clock
from vmkernel.events import EventBus
from vmkernel.host.block import BlockDisk, BlockTree
from vmkernel.model import DiskHealth, Finding, HealthState, Severity, Subject

__all__ = ["DiskHealthWatch"]

_log = logging.getLogger(__name__)
_FIRST_S = 15.0
_POLL_S = 30.0
_EVERY_S = 1800.0
_NOT_YET = DiskHealth(state=HealthState.UNKNOWN, reason="It was not checked yet.")
_MUTE = DiskHealth(state=HealthState.UNKNOWN, reason="Disks of its kind report no health.")
_MUTE_TRANSPORTS = ("virtio", "mmc")

_ASLEEP = DiskHealth(state=HealthState.UNKNOWN, reason="It is asleep and was not woken.")

Ask = Callable[[BlockDisk], Awaitable[DiskHealth | None]]
"""None if the disk is asleep."""


class DiskHealthWatch:
    """Owned by the event loop's thread; `ask` reads one disk."""

    def __init__(
        self, tree: BlockTree, ask: Ask, stick: Callable[[], str | None], bus: EventBus
    ) -> None:
        self._tree = tree
        self._ask = ask
        self._stick = stick
        self._bus = bus
        self._known: dict[str, DiskHealth] = {}
        self._asked_s: dict[str, float] = {}

    def of(self, disk_id: str) -> DiskHealth:
        """What is known of a disk."""
        return self._known.get(disk_id, _NOT_YET)

    def findings(self) -> Iterator[Finding]:
        """Disks that are failing or worn out."""
        for disk_id, health in sorted(self._known.items()):
            if health.state in (HealthState.WARNING, HealthState.FAILING):
                failing = health.state is HealthState.FAILING
                yield Finding(
                    code="disk-failing" if failing else "disk-worn",
                    severity=Severity.ERROR if failing else Severity.WARNING,
                    message=f"Disk {disk_id}: {health.reason}",
                    subject=f"disk/{disk_id}",
                )

    async def watch(self) -> None:
        """Read each disk in turn; until cancelled."""
        await asyncio.sleep(_FIRST_S)
        while True:
            try:
                await self.poll()
            except Exception:
                _log.exception("looking after the disks failed")
            await asyncio.sleep(_POLL_S)

    async def poll(self) -> None:
        """Read the disks that are due; forget those that were removed."""
        disks = await asyncio.to_thread(self._tree.disks)
        there = {disk.id for disk in disks}
        for gone in self._known.keys() - there:
            del self._known[gone]
            self._asked_s.pop(gone, None)
        for disk in disks:
            if disk.transport in _MUTE_TRANSPORTS or disk.name == self._stick():
                self._known[disk.id] = _MUTE
                continue
            asked_s = self._asked_s.get(disk.id)
            if asked_s is not None and time.monotonic() - asked_s < _EVERY_S:
                continue
            self._asked_s[disk.id] = time.monotonic()
            self._take(disk.id, await self._ask(disk))

    def _take(self, disk_id: str, health: DiskHealth | None) -> None:
        before = self._known.get(disk_id)
        if health is None:
            self._known.setdefault(disk_id, _ASLEEP)
            return
        health = msgspec.structs.replace(health, checked_at=clock.now())
        self._known[disk_id] = health
        was = before.state if before is not None else HealthState.UNKNOWN
        told = (HealthState.WARNING, HealthState.FAILING)
        if health.state is not was and (health.state in told or was in told):
            _log.warning("disk %s: %s: %s", disk_id, health.state, health.reason)
            self._bus.publish(
                "disk.health",
                Subject(kind="disk", id=disk_id),
                message=health.reason or "",
                data={"state": health.state.value},
            )
