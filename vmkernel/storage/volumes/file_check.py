"""The check of a volume's file by qemu-img, and the repair of what it finds."""

from __future__ import annotations

import asyncio
import contextlib
import re

import msgspec

from vmkernel import clock
from vmkernel.host.errors import from_os_error
from vmkernel.host.files import sync_file
from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import (
    CheckRepair,
    ErrorCode,
    MicaError,
    Operation,
    VolumeCheck,
    VolumeFormat,
)
from vmkernel.operations import OperationContext
from vmkernel.storage.catalogue import Catalogue, VolumeEntry
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.datastores.rescan import VolumeRescan
from vmkernel.storage.errors import StorageError
from vmkernel.storage.patience import patient
from vmkernel.storage.usage import VmUsage
from vmkernel.storage.volumes.service import (
    Volumes,
)

__all__ = ["VolumeFileCheck"]

_OWN_SNAPSHOT = re.compile(r"mica-[0-9a-f]{16}")
"""Mica's names for a VM's snapshots inside its disks."""


class VolumeFileCheck:
    def __init__(
        self,
        volumes: Volumes,
        datastores: Datastores,
        rescan: VolumeRescan,
        catalogue: Catalogue,
        usage: VmUsage,
        qemu_img: QemuImg,
    ) -> None:
        self._volumes = volumes
        self._datastores = datastores
        self._rescan = rescan
        self._catalogue = catalogue
        self._usage = usage
        self._qemu_img = qemu_img

    @patient
    async def check(self, volume_id: str, repair: CheckRepair, *, actor: str) -> Operation:
        """Check the tables of a qcow2, even if it can't be used at present; the result is in the
        volume's status.
        """
        entry = self._volumes.checks.checkable(volume_id)
        if repair is not CheckRepair.NONE:
            self._catalogue.refuse_children(volume_id)
        if entry.format is not VolumeFormat.QCOW2:
            raise StorageError(
                ErrorCode.UNSUPPORTED, f"Volume {volume_id} is raw: it has no tables to check."
            )
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._catalogue.locked("volume", volume_id, "checked"))
            lock = undo.pop_all()
            undo.push(lock)

            async def work(context: OperationContext) -> None:
                with lock:  # the rescan passes over what is locked
                    async with self._datastores.using(entry.datastore):
                        context.advance(0, stage="check")
                        await self._check(context, entry, repair)
                await self._rescan.volumes([volume_id])

            return self._volumes.begin(
                "volume.check",
                volume_id,
                work,
                actor,
                held=undo,
                cancellable=repair is CheckRepair.NONE,
            )

    async def _check(
        self, context: OperationContext, entry: VolumeEntry, repair: CheckRepair
    ) -> None:
        assert entry.record is not None
        path = entry.place.data
        found = await self._qemu_img.check(
            path,
            entry.format.value,
            repair=None if repair is CheckRepair.NONE else repair.value,
        )
        context.commit_point()
        stray, removed = await self._stray_snapshots(entry, repair)
        record = msgspec.structs.replace(
            entry.record,
            last_check=VolumeCheck(
                snapshots=stray,
                snapshots_removed=removed,
                checked_at=clock.now(),
                corruptions=found.corruptions,
                leaks=found.leaks,
                corruptions_fixed=found.corruptions_fixed,
                leaks_fixed=found.leaks_fixed,
            ),
        )
        try:
            await asyncio.to_thread(sync_file, path)
            await asyncio.to_thread(entry.place.describe, record)
        except OSError as error:
            raise from_os_error(error, f"Volume {entry.id}") from error
        self._catalogue.described(entry.id, record)
        if found.corruptions:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"Volume {entry.id} has {found.corruptions} faults: copy what can be read, then"
                " check it with repair=all, which may lose data.",
            )

    async def _stray_snapshots(self, entry: VolumeEntry, repair: CheckRepair) -> tuple[int, int]:
        """How many snapshots inside a qcow2 belong to no VM and stay, and how many were removed.

        None is removed that might belong to a VM or a datastore that is missing now.
        """
        path = entry.place.data
        try:
            inside = await self._qemu_img.snapshots(path)
        except MicaError:
            return 0, 0  # its tables are beyond that, which the check says
        known = self._usage.vms.snapshot_tags(entry.id)
        if known is None:
            return 0, 0
        stray = sorted(inside - known)
        removable = {
            CheckRepair.NONE: (),
            CheckRepair.LEAKS: [tag for tag in stray if _OWN_SNAPSHOT.fullmatch(tag)],
            CheckRepair.ALL: stray,
        }[repair]
        for tag in removable:
            await self._qemu_img.snapshot("-d", tag, path)
        return len(stray) - len(removable), len(removable)
