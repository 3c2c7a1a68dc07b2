"""Where and how a volume is kept: its datastore, format, allocation and backing chain.

What a running VM has open is copied by its QEMU (LiveDisks), everything else by qemu-img.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

import msgspec

from vmkernel.host.errors import from_os_error
from vmkernel.host.files import exists, remove
from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import (
    Allocation,
    ErrorCode,
    Operation,
    VolumeFormat,
)
from vmkernel.operations import OperationContext
from vmkernel.storage.catalogue import Catalogue, VolumeEntry
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.datastores.room import Room, Shape
from vmkernel.storage.errors import BrieflyBusy, StorageError
from vmkernel.storage.layout import Place
from vmkernel.storage.patience import patient
from vmkernel.storage.records import MovedFrom, VolumeRecord
from vmkernel.storage.usage import VmUsage
from vmkernel.storage.volumes.files import (
    copy_volume,
    finish,
    make_file,
    space_for_copy,
)
from vmkernel.storage.volumes.service import (
    Volumes,
    refuse_revision,
)

__all__ = ["LastStep", "VolumeMoves"]

_log = logging.getLogger(__name__)


class VolumeMoves:
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
