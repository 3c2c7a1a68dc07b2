"""Volumes that are deleted unless a VM names them in time: a client that makes volumes for a VM may
end before the VM is made.

  created with `delete_unless_used_s` -> a VM's stored spec names it -> the mark goes: it stays
                                      -> nothing uses it for that time -> deleted

The mark is in the volume's description. The time counts from the volume's creation, from the last
work on it (such as a write), and from a start of the vmkernel: a host's clock may be wrong until it
has heard of others. While a VM that might name a volume can't be known, none is deleted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from vmkernel import clock
from vmkernel.events import EventBus
from vmkernel.host.errors import from_os_error
from vmkernel.model import MicaError, Subject, Timestamp
from vmkernel.storage.catalogue import Catalogue, VolumeEntry
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.usage import VmUsage

__all__ = ["ProvisionalVolumes"]

_log = logging.getLogger(__name__)

SWEEP_S = 1.0
"""How late one may be deleted; a sweep looks at the catalogue in memory only."""


class ProvisionalVolumes:
    """Owned by the event loop's thread."""

    def __init__(
        self, catalogue: Catalogue, datastores: Datastores, usage: VmUsage, bus: EventBus
    ) -> None:
        self._bus = bus
        self._catalogue = catalogue
        self._datastores = datastores
        self._usage = usage
        self._deadlines: dict[str, float] = {}
        """By id, on the monotonic clock."""
        self._told: set[str] = set()
        """Those of which the log knows that they can't be marked."""

    def expires_at(self, entry: VolumeEntry) -> Timestamp | None:
        """When a volume is deleted unless a VM names it by then; None for one that stays."""
        wait_s = _mark(entry)
        if wait_s is None:
            return None
        left = self._deadlines.get(entry.id, time.monotonic() + wait_s) - time.monotonic()
        return clock.format_time(time.time() + max(0.0, left))

    def made(self, volume_id: str) -> None:
        """A volume was made, perhaps by the id of one that was deleted a moment ago."""
        self._deadlines.pop(volume_id, None)
        self._told.discard(volume_id)

    async def keep_named(self, volumes: Iterable[str]) -> None:
        """Let volumes stay which a VM's stored spec names; durable on return. One that can't be
        marked now (its datastore fails, it is being worked on) is by a later sweep, and as long as
        its VM names it, it stays all the same."""
        for volume_id in volumes:
            try:
                await self.keep(volume_id)
            except MicaError as error:
                if volume_id not in self._told:
                    _log.warning("volume %s is marked as kept later: %s", volume_id, error)
                self._told.add(volume_id)

    async def keep(self, volume_id: str) -> None:
        """Let a volume stay; durable on return."""
        entry = self._catalogue.volumes.get(volume_id)
        if entry is None or _mark(entry) is None:
            return
        with self._catalogue.locked("volume", volume_id, "kept"):
            async with self._datastores.using(entry.datastore):
                entry = self._catalogue.volume(volume_id)
                assert entry.record is not None
                record = msgspec.structs.replace(entry.record, delete_unless_used_s=None)
                try:
                    await asyncio.to_thread(entry.place.describe, record)
                except OSError as error:
                    raise from_os_error(error, f"Volume {volume_id}") from error
                self._catalogue.described(volume_id, record)

    async def watch(self, delete: Callable[[str], Awaitable[None]]) -> None:
        """Delete those whose VMs never came, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            for volume in await self.sweep():
                if not self.is_over(volume):
                    continue
                try:
                    await delete(volume)
                except MicaError as error:
                    _log.warning("volume %s is not deleted yet: %s", volume, error)
                    continue
                self._bus.publish(
                    "volume.expired",
                    Subject(kind="volume", id=volume),
                    message="It was deleted, because no VM has named it in its time.",
                )

    async def sweep(self) -> tuple[str, ...]:
        """Mark those that VMs name as kept; the ids of those whose time may be over."""
        now = time.monotonic()
        used = self._catalogue.take_used()
        marked = {
            entry.id: wait_s
            for entry in self._catalogue.volumes.values()
            if (wait_s := _mark(entry)) is not None
        }
        named = [volume for volume in marked if self._usage.vms.names_volume(volume)]
        old = self._deadlines
        self._deadlines = {
            volume: now + wait_s
            if volume in used or volume not in old or self._catalogue.busy("volume", volume)
            else old[volume]
            for volume, wait_s in marked.items()
        }
        self._told &= set(marked)
        await self.keep_named(named)
        return tuple(volume for volume, end in self._deadlines.items() if end <= now)

    def is_over(self, volume_id: str) -> bool:
        """True if a volume is to be deleted now."""
        entry = self._catalogue.volumes.get(volume_id)
        return (
            entry is not None
            and _mark(entry) is not None
            and self._deadlines.get(volume_id, float("inf")) <= time.monotonic()
            and self._usage.vms.names_volume(volume_id) is False
        )


def _mark(entry: VolumeEntry) -> int | None:
    return entry.record.delete_unless_used_s if entry.record is not None else None
