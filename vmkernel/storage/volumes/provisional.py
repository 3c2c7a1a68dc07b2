"""Volumes that are deleted unless a VM names them in time: a client that makes volumes for a VM may
fail before the VM is made.

  created with `delete_unless_used_s` -> a VM's stored spec names it -> mark removed: it stays
                                      -> nothing uses it for that time -> deleted

The mark is in the volume's description. The time counts from the volume's creation, from the last
work on it (such as a write), and from a start of the vmkernel: a host's clock may be wrong until it
is synchronised. While a VM that might name a volume is unknown, none is deleted.

Volumes that are kept together stay all or none, whenever the vmkernel ends: the description of the
first names the others from the moment it is kept until each of them is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from vmkernel import clock
from vmkernel.events import EventBus
from vmkernel.host.errors import from_os_error
from vmkernel.model import ErrorCode, MicaError, Subject, Timestamp
from vmkernel.storage.catalogue import Catalogue, VolumeEntry
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.usage import VmUsage

__all__ = ["ProvisionalVolumes"]

_log = logging.getLogger(__name__)

SWEEP_S = 1.0
"""How late a deletion may be; a sweep reads only the catalogue in memory."""


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
        """Those whose failure to be marked has been logged."""

    def expires_at(self, entry: VolumeEntry) -> Timestamp | None:
        """When a volume is deleted unless a VM names it; None if it stays."""
        wait_s = _mark(entry)
        if wait_s is None:
            return None
        left = self._deadlines.get(entry.id, time.monotonic() + wait_s) - time.monotonic()
        return clock.format_time(time.time() + max(0.0, left))

    def made(self, volume_id: str) -> None:
        """A volume was made, perhaps with the id of one that was just deleted."""
        self._deadlines.pop(volume_id, None)
        self._told.discard(volume_id)

    async def keep_named(self, volumes: Iterable[str]) -> None:
        """Keep volumes that a VM's stored spec names; durable on return. One that can't be marked
        now (its datastore fails, it is locked) is marked by a later sweep; until then it stays
        while its VM names it.
        """
        for volume_id in volumes:
            try:
                await self.keep(volume_id)
            except MicaError as error:
                if volume_id not in self._told:
                    _log.warning("volume %s is marked as kept later: %s", volume_id, error)
                self._told.add(volume_id)

    async def keep(self, volume_id: str) -> None:
        """Keep a volume; durable on return."""
        entry = self._catalogue.volumes.get(volume_id)
        if entry is None or _mark(entry) is None:
            return
        with self._locked(volume_id):
            await self._describe(volume_id, delete_unless_used_s=None)

    def hold(self, volume_id: str, others: Sequence[str]) -> contextlib.ExitStack:
        """Lock a volume and others of its datastore, which are to be kept together, until the
        result is closed; `invalid` if one can't be."""
        datastore = self._catalogue.volume(volume_id).datastore
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._locked(volume_id))
            for number, other in enumerate(others):
                pointer = f"/together_with/{number}"
                entry = self._catalogue.volumes.get(other)
                if entry is None or entry.datastore != datastore:
                    text = f"There is no volume {other} on datastore {datastore}."
                    raise MicaError.field(pointer, text)
                if entry.record is None:
                    text = f"Volume {other} can't be used: {entry.reason}."
                    raise MicaError.field(pointer, text, ErrorCode.CONFLICT)
                if other == volume_id or other in others[:number]:
                    raise MicaError.field(pointer, f"Volume {other} is named twice.")
                undo.enter_context(self._locked(other))
            return undo.pop_all()

    async def keep_together(self, volumes: Iterable[str]) -> None:
        """Keep all of these, or none; durable on return. The caller holds them."""
        marked = [v for v in volumes if _mark(self._catalogue.volume(v)) is not None]
        if not marked:
            return
        first, *others = marked
        await self._describe(first, delete_unless_used_s=None, keeps=tuple(others))
        try:
            for volume_id in others:
                await self._describe(volume_id, delete_unless_used_s=None)
            if others:
                await self._describe(first, keeps=())
        except MicaError as error:  # it is decided: a later sweep writes the rest down
            _log.warning("volumes kept with %s are marked as kept later: %s", first, error)

    def _locked(self, volume_id: str) -> contextlib.AbstractContextManager[None]:
        """A volume is kept when a VM names it, which then opens it: both may happen at once."""
        return self._catalogue.locked("volume", volume_id, "kept", in_use=True, brief=True)

    async def _describe(self, volume_id: str, **changes: object) -> None:
        """Change a locked volume's description; durable on return."""
        entry = self._catalogue.volume(volume_id)
        async with self._datastores.using(entry.datastore):
            entry = self._catalogue.volume(volume_id)
            assert entry.record is not None
            record = msgspec.structs.replace(entry.record, **changes)
            try:
                await asyncio.to_thread(entry.place.describe, record)
            except OSError as error:
                raise from_os_error(error, f"Volume {volume_id}") from error
            self._catalogue.described(volume_id, record)

    def _keepers(self) -> dict[str, tuple[str, ...]]:
        """The volumes whose descriptions name others that are kept with them, and those others."""
        volumes = self._catalogue.volumes.values()
        return {v.id: v.record.keeps for v in volumes if v.record is not None and v.record.keeps}

    async def _finish_keeping(self) -> None:
        """Complete an interrupted `keep_together`."""
        for keeper, kept in self._keepers().items():
            await self.keep_named(kept)
            entries = (self._catalogue.volumes.get(volume_id) for volume_id in kept)
            if any(entry is not None and _mark(entry) is not None for entry in entries):
                continue
            with contextlib.suppress(MicaError):
                with self._locked(keeper):
                    await self._describe(keeper, keeps=())

    async def watch(self, delete: Callable[[str], Awaitable[None]]) -> None:
        """Delete volumes whose VMs were never made; until cancelled."""
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
                    message="It was deleted because no VM used it in time.",
                )

    async def sweep(self) -> tuple[str, ...]:
        """Mark those that VMs name as kept; returns the ids of those whose time may be over."""
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
        await self._finish_keeping()
        return tuple(volume for volume, end in self._deadlines.items() if end <= now)

    def is_over(self, volume_id: str) -> bool:
        """True if a volume is to be deleted now."""
        entry = self._catalogue.volumes.get(volume_id)
        return (
            entry is not None
            and _mark(entry) is not None
            and self._deadlines.get(volume_id, float("inf")) <= time.monotonic()
            and self._usage.vms.names_volume(volume_id) is False
            and not any(volume_id in kept for kept in self._keepers().values())
        )


def _mark(entry: VolumeEntry) -> int | None:
    return entry.record.delete_unless_used_s if entry.record is not None else None
