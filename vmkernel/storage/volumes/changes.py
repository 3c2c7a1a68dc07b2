"""Changes of a volume that exists: size, format, allocation, place; and the check of its file.

What a running VM has open is changed by its QEMU (LiveDisks), everything else by qemu-img.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from dataclasses import replace

import msgspec

from vmkernel import clock
from vmkernel.host.errors import from_os_error
from vmkernel.host.files import exists, remove, sync_file
from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import (
    Allocation,
    CheckRepair,
    ErrorCode,
    MicaError,
    Operation,
    VolumeCheck,
    VolumeFormat,
)
from vmkernel.model.volumes import MAX_VOLUME_BYTES, MIN_VOLUME_BYTES, SECTOR_BYTES
from vmkernel.operations import OperationContext
from vmkernel.storage.catalogue import Catalogue, VolumeEntry, probe_file
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.datastores.rescan import VolumeRescan
from vmkernel.storage.datastores.room import Room, Shape
from vmkernel.storage.errors import BrieflyBusy, StorageError
from vmkernel.storage.layout import Place
from vmkernel.storage.patience import patient
from vmkernel.storage.records import MovedFrom, RecordError, VolumeRecord
from vmkernel.storage.usage import VmUsage
from vmkernel.storage.volumes.files import (
    allocate_raw,
    copy_volume,
    finish,
    make_file,
    space_for_copy,
    whole_blocks,
)
from vmkernel.storage.volumes.service import (
    Volumes,
    refuse_revision,
)

__all__ = ["LastStep", "VolumeChanges"]

_log = logging.getLogger(__name__)
_OWN_SNAPSHOT = re.compile(r"mica-[0-9a-f]{16}")
"""Mica's names for a VM's snapshots inside its disks."""


class VolumeChanges:
    def __init__(
        self,
        volumes: Volumes,
        datastores: Datastores,
        capacity: Capacity,
        rescan: VolumeRescan,
        catalogue: Catalogue,
        usage: VmUsage,
        qemu_img: QemuImg,
    ) -> None:
        self._volumes = volumes
        self._datastores = datastores
        self._capacity = capacity
        self._rescan = rescan
        self._catalogue = catalogue
        self._usage = usage
        self._qemu_img = qemu_img

    # --- size ---------------------------------------------------------------------------------

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

    # --- place, format, allocation ------------------------------------------------------------

    async def flatten(self, volume_id: str, *, actor: str) -> Operation:
        """Make a linked volume independent: the data of its backing chain are copied into it, also
        while its VM runs.
        """
        entry, record = self._volumes.checks.sound(volume_id)
        if record.backing is None:
            raise StorageError(
                ErrorCode.CONFLICT, f"Volume {volume_id} is not linked to another volume."
            )
        return await self.move(
            volume_id,
            datastore=entry.datastore,
            volume_format=entry.format,
            allocation=record.allocation,
            revision=None,
            actor=actor,
            kind="volume.flatten",
        )

    @patient
    async def move(
        self,
        volume_id: str,
        *,
        datastore: str,
        volume_format: VolumeFormat,
        allocation: Allocation,
        revision: int | None,
        actor: str,
        kind: str = "volume.move",
    ) -> Operation:
        """Move a volume to another datastore, format or allocation, also while its VM runs. A
        linked one becomes independent.
        """
        place = self._datastores.layout_for(datastore).volume(volume_id, volume_format)
        before = self._volumes.checks.sound(volume_id)[0]
        layers = self._catalogue.chain(before)
        shape: Shape = (volume_format, allocation, before.size_bytes)
        needed = await self._datastores.probe(
            before.datastore, lambda: space_for_copy(before, shape, layers)
        )
        stray, described = await self._datastores.probe(
            datastore, lambda: (exists(place.data), exists(place.record))
        )
        await self._capacity.measure(datastore)
        entry, record = self._volumes.checks.sound(volume_id)
        refuse_revision(record, revision)
        self._usage.refuse_snapshots(volume_id)
        self._catalogue.refuse_children(volume_id)
        if entry != before or self._catalogue.chain(entry) != layers:
            raise BrieflyBusy(f"Volume {volume_id} is being changed; try again.")
        if place.data != entry.place.data and stray:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"A file {place.data.name} without a description is on {datastore}.",
            )
        if datastore != entry.datastore and described:
            raise StorageError(
                ErrorCode.CONFLICT, f"Datastore {datastore} holds a volume {volume_id} already."
            )
        live = self._usage.vms.volume_is_open(volume_id)
        with contextlib.ExitStack() as undo:
            room = Room(self._capacity, datastore, needed, pointer="/spec/datastore")
            undo.callback(room.release)
            undo.enter_context(self._catalogue.locked("volume", volume_id, "moved"))

            async def work(context: OperationContext) -> None:
                async with (
                    self._datastores.using(entry.datastore, writes=False),
                    self._datastores.using(datastore),
                ):
                    await self._move(context, entry, datastore, place, shape, room, live=live)

            return self._volumes.begin(kind, volume_id, work, actor, held=undo, cancellable=True)

    async def _move(
        self,
        context: OperationContext,
        entry: VolumeEntry,
        datastore: str,
        place: Place,
        shape: Shape,
        room: Room,
        *,
        live: bool,
    ) -> None:
        step = LastStep(
            self._catalogue, entry, datastore, self._datastores.uuid(datastore), place, shape
        )

        async def commit() -> None:
            context.commit_point()
            await step.commit()

        total = entry.size_bytes
        try:
            if live:
                await self._make_empty(place, shape)
                await self._usage.live().mirror(
                    entry.id,
                    place.incoming,
                    shape[0],
                    on_progress=lambda done, whole: context.advance(done, whole, stage="mirror"),
                    commit=commit,
                    revert=step.revert,
                )
            else:
                await copy_volume(
                    self._qemu_img,
                    entry,
                    place.incoming,
                    shape,
                    room,
                    on_fraction=lambda part: context.advance(
                        int(total * part), total, stage="copy"
                    ),
                    chain=self._catalogue.chain(entry),
                )
                await commit()
        except BaseException as error:
            if not step.committed:
                await asyncio.shield(asyncio.to_thread(place.discard))
            if isinstance(error, OSError):
                raise from_os_error(error, f"Volume {entry.id} can't be moved") from error
            raise
        context.advance(total, total, stage="clean")
        await step.clean()

    async def _make_empty(self, place: Place, shape: Shape) -> None:
        """The file that a running VM's disk is mirrored to."""
        volume_format, allocation, size_bytes = shape
        await asyncio.to_thread(make_file, place.incoming)
        if volume_format is VolumeFormat.QCOW2:
            await self._qemu_img.create_qcow2(
                place.incoming,
                size_bytes,
                thick=allocation is Allocation.THICK,
            )
        await asyncio.to_thread(finish, place.incoming, shape)

    # --- check --------------------------------------------------------------------------------

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


class LastStep:
    """The end of a move, after which the new volume is the valid one; see interrupted_moves.py."""

    def __init__(
        self,
        catalogue: Catalogue,
        entry: VolumeEntry,
        datastore: str,
        store_uuid: str,
        place: Place,
        shape: Shape,
    ) -> None:
        assert entry.record is not None
        volume_format, allocation, size_bytes = shape
        self._catalogue = catalogue
        self._old = entry
        self._record = entry.record
        self._place = place
        self.committed = False
        record = msgspec.structs.replace(
            self._record,
            revision=self._record.revision + 1,
            format=volume_format,
            allocation=allocation,
            backing=None,
            moved_from=MovedFrom(datastore_uuid=entry.store_uuid, format=entry.format),
        )
        self._new_record = record
        self._new = VolumeEntry(
            entry.id, datastore, place, volume_format, size_bytes, record, store_uuid=store_uuid
        )

    async def commit(self) -> None:
        """Durable on return; if it fails, the old volume stays valid."""
        try:
            await asyncio.shield(asyncio.to_thread(self._commit))
        except OSError as error:
            raise from_os_error(error, f"Volume {self._old.id} can't be moved") from error
        self.committed = True
        self._catalogue.take_volume(self._new)

    def _commit(self) -> None:
        if self._new.store_uuid == self._old.store_uuid:
            self._place.become(self._new_record, old=self._record)
            return
        self._old.place.describe(
            msgspec.structs.replace(self._record, moving_to=self._new.store_uuid)
        )
        try:
            self._place.publish(self._new_record)
        except OSError:
            self._old.place.describe(self._record)
            raise

    async def revert(self) -> None:
        """QEMU stayed with the old file after all."""
        if not self.committed:
            return
        record = msgspec.structs.replace(self._record, revision=self._record.revision + 2)
        if self._place.data == self._old.place.data:
            raise StorageError(
                ErrorCode.UNAVAILABLE,
                f"Volume {self._old.id} was converted and QEMU did not follow: power its VM off.",
            )
        await asyncio.shield(asyncio.to_thread(self._revert, record))
        self._catalogue.take_volume(replace(self._old, record=record))
        self.committed = False

    def _revert(self, record: VolumeRecord) -> None:
        self._old.place.describe(record)
        if self._place.record == self._old.place.record:
            remove(self._place.data)
        else:
            self._place.remove()

    async def clean(self) -> None:
        """Remove the old volume; what can't be removed now is removed when its
        datastore is opened.
        """
        same_datastore = self._place.record == self._old.place.record
        try:
            if not same_datastore:
                await asyncio.to_thread(self._old.place.remove)
            elif self._place.data != self._old.place.data:
                await asyncio.to_thread(remove, self._old.place.data)
        except OSError as error:
            _log.warning("what is left of volume %s can't be removed: %s", self._old.id, error)
