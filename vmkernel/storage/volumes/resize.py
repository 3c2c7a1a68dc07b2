"""The size of a volume that exists.

What a running VM has open is changed by its QEMU (LiveDisks), everything else by qemu-img.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from vmkernel.host.errors import from_os_error
from vmkernel.host.files import sync_file
from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import (
    Allocation,
    ErrorCode,
    MicaError,
    Operation,
    VolumeFormat,
)
from vmkernel.model.volumes import MAX_VOLUME_BYTES, MIN_VOLUME_BYTES, SECTOR_BYTES
from vmkernel.operations import OperationContext
from vmkernel.storage.catalogue import Catalogue, VolumeEntry, probe_file
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.errors import StorageError
from vmkernel.storage.patience import patient
from vmkernel.storage.records import RecordError, VolumeRecord
from vmkernel.storage.usage import VmUsage
from vmkernel.storage.volumes.files import (
    allocate_raw,
    whole_blocks,
)
from vmkernel.storage.volumes.service import (
    Volumes,
    refuse_revision,
)

__all__ = ["VolumeResizing"]


class VolumeResizing:
    def __init__(
        self,
        volumes: Volumes,
        datastores: Datastores,
        capacity: Capacity,
        catalogue: Catalogue,
        usage: VmUsage,
        qemu_img: QemuImg,
    ) -> None:
        self._volumes = volumes
        self._datastores = datastores
        self._capacity = capacity
        self._catalogue = catalogue
        self._usage = usage
        self._qemu_img = qemu_img

    @patient
    async def resize(
        self,
        volume_id: str,
        size_bytes: int,
        *,
        revision: int | None,
        allow_shrink: bool,
        actor: str,
    ) -> Operation:
        """Change the size; while its VM runs, a volume can only grow, and the guest is notified."""
        await self._capacity.measure(self._volumes.checks.sound(volume_id)[0].datastore)
        entry, record = self._volumes.checks.sound(volume_id)
        refuse_revision(record, revision)
        self._usage.refuse_snapshots(volume_id)
        self._catalogue.refuse_children(volume_id)
        if not MIN_VOLUME_BYTES <= size_bytes <= MAX_VOLUME_BYTES or size_bytes % SECTOR_BYTES:
            raise MicaError.field(
                "/spec/size_bytes",
                f"The size must be a multiple of {SECTOR_BYTES} from {MIN_VOLUME_BYTES} to "
                f"{MAX_VOLUME_BYTES}.",
            )
        if size_bytes != entry.size_bytes:
            size_bytes = whole_blocks(size_bytes)
        shrink = size_bytes < entry.size_bytes
        if shrink and not allow_shrink:
            raise MicaError.field(
                "/spec/size_bytes",
                f"Volume {volume_id} has {entry.size_bytes} bytes; to shrink it, set allow_shrink.",
                ErrorCode.CONFLICT,
            )
        if shrink and record.backing is not None:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"Volume {volume_id} is linked to {record.backing.volume}: flatten it before you"
                " shrink it.",
            )
        live = self._usage.vms.volume_is_open(volume_id)
        thick = record.allocation is Allocation.THICK
        if live and (shrink or (thick and entry.format is VolumeFormat.QCOW2)):
            what = "shrinks" if shrink else "of format qcow2 and thick grows"
            raise StorageError(
                ErrorCode.IN_USE,
                f"A volume {what} only while nothing has it open; shut VM"
                f" {self._usage.vms.vm_of_volume(volume_id)} down first.",
            )
        grown = max(0, size_bytes - entry.size_bytes) if thick else 0
        with contextlib.ExitStack() as undo:
            undo.callback(
                self._capacity.reserve(entry.datastore, grown, pointer="/spec/size_bytes")
            )
            undo.enter_context(self._catalogue.locked("volume", volume_id, "resized"))

            async def work(context: OperationContext) -> None:
                async with self._datastores.using(entry.datastore):
                    context.advance(0, stage="resize")
                    await self._resize(entry, record, size_bytes, shrink=shrink, live=live)

            return self._volumes.begin("volume.resize", volume_id, work, actor, held=undo)

    async def _resize(
        self, entry: VolumeEntry, record: VolumeRecord, size_bytes: int, *, shrink: bool, live: bool
    ) -> None:
        path = entry.place.data
        thick = record.allocation is Allocation.THICK
        if live:
            await self._usage.live().resize(entry.id, size_bytes)
        else:
            await self._qemu_img.resize(
                path, entry.format.value, size_bytes, shrink=shrink, thick=thick
            )
        changed = msgspec.structs.replace(record, revision=record.revision + 1)

        def settle() -> int:
            if thick and entry.format is VolumeFormat.RAW:
                allocate_raw(path, size_bytes)
            sync_file(path)
            entry.place.describe(changed)
            return probe_file(path, entry.format)[0]

        try:
            actual = await asyncio.to_thread(settle)
        except RecordError as error:
            raise StorageError(
                ErrorCode.UNAVAILABLE, f"Volume {entry.id} can't be read any more: {error}."
            ) from error
        except OSError as error:
            raise from_os_error(error, f"Volume {entry.id} can't be resized") from error
        self._catalogue.described(entry.id, changed, actual)
