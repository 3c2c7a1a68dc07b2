"""Volumes: virtual disks in qcow2 or raw files, empty or filled from an image."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from vmkernel import clock, dry_run
from vmkernel.events import EventBus
from vmkernel.host.errors import from_os_error, naming_datastore
from vmkernel.host.extents import shared_bytes
from vmkernel.host.files import allocated_bytes, exists, remove
from vmkernel.host.qemu_img import Layer, QemuImg
from vmkernel.model import (
    Allocation,
    ErrorCode,
    ImageFormat,
    MicaError,
    Operation,
    Subject,
    Volume,
    VolumeFormat,
    VolumeSpec,
    VolumeStatus,
)
from vmkernel.model.volumes import MIN_VOLUME_BYTES, SECTOR_BYTES
from vmkernel.operations import OperationContext, OperationRegistry, Work
from vmkernel.storage.catalogue import Catalogue, ImageEntry, VolumeEntry
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.registry import GLANCE_S, Datastores
from vmkernel.storage.datastores.room import QCOW2_OVERHEAD_BYTES, Room, Shape, qcow2_overhead
from vmkernel.storage.errors import StorageError
from vmkernel.storage.layout import Place
from vmkernel.storage.patience import patient
from vmkernel.storage.records import Backing, VolumeRecord
from vmkernel.storage.usage import VmUsage
from vmkernel.storage.volumes.checks import VolumeChecks
from vmkernel.storage.volumes.files import (
    copy_volume,
    finish,
    make_file,
    space_for_copy,
    whole_blocks,
)
from vmkernel.storage.volumes.provisional import ProvisionalVolumes

__all__ = [
    "ExportedVolume",
    "ProgressSink",
    "Volumes",
    "refuse_revision",
]

_DISK_IMAGES = {
    ImageFormat.QCOW2: "qcow2",
    ImageFormat.RAW: "raw",
    ImageFormat.ISO: "raw",
}


class ProgressSink(Protocol):
    """Receives the progress of making a volume; an operation's context is one."""

    def advance(self, done: int, total: int = 0, *, stage: str = "") -> None: ...

    def commit_point(self) -> None: ...


@dataclass(frozen=True)
class Survey:
    """What was read of the files before a volume is made."""

    needed_bytes: int
    stray: bool
    """True if a file without a description is in its place."""


@dataclass(frozen=True)
class ExportedVolume:
    """A volume whose data are being read."""

    entry: VolumeEntry
    chain: tuple[Layer, ...] = ()
    """Its backing chain, from the top down."""


class Volumes:
    """Owns the volumes of all datastores."""

    def __init__(
        self,
        datastores: Datastores,
        capacity: Capacity,
        catalogue: Catalogue,
        operations: OperationRegistry,
        bus: EventBus,
        usage: VmUsage,
        qemu_img: QemuImg,
        provisional: ProvisionalVolumes,
    ) -> None:
        self._datastores = datastores
        self._capacity = capacity
        self._catalogue = catalogue
        self._operations = operations
        self._bus = bus
        self._usage = usage
        self.checks = VolumeChecks(catalogue, usage)
        self._qemu_img = qemu_img
        self._provisional = provisional

    # --- reading ------------------------------------------------------------------------------

    async def list(
        self, datastore: str | None, after: str | None, limit: int
    ) -> tuple[tuple[Volume, ...], bool]:
        """The volumes of one datastore or of all, by id, and whether others follow."""
        entries = sorted(
            (
                entry
                for entry in self._catalogue.volumes.values()
                if (datastore is None or entry.datastore == datastore)
                and (after is None or entry.id > after)
            ),
            key=lambda entry: entry.id,
        )
        wanted = entries[:limit]
        allocated = await self._allocated(wanted)
        linked = self._catalogue.linked()
        volumes = (
            self._describe(entry, allocated[entry.id], linked.get(entry.id, ())) for entry in wanted
        )
        return tuple(volumes), len(entries) > limit

    async def get(self, volume_id: str) -> Volume:
        entry = self._catalogue.volume(volume_id)
        allocated = await self._allocated((entry,))
        shared: int | None = None
        with contextlib.suppress(MicaError):
            shared = await self._datastores.probe(
                entry.datastore, lambda: shared_bytes(entry.place.data), patience_s=GLANCE_S
            )
        found = self._describe(entry, allocated[volume_id], self._catalogue.children(volume_id))
        return msgspec.structs.replace(
            found, status=msgspec.structs.replace(found.status, shared_bytes=shared)
        )

    async def _allocated(self, wanted: Sequence[VolumeEntry]) -> dict[str, int]:
        """The space that volumes take in their datastores now; 0 if a datastore doesn't answer
        soon.
        """
        found = dict.fromkeys((entry.id for entry in wanted), 0)

        async def ask(datastore: str) -> None:
            paths = {e.id: e.place.data for e in wanted if e.datastore == datastore}
            with contextlib.suppress(MicaError):
                found.update(
                    await self._datastores.probe(
                        datastore,
                        lambda: {key: allocated_bytes(path) for key, path in paths.items()},
                        patience_s=GLANCE_S,
                    )
                )

        await asyncio.gather(*(ask(name) for name in {entry.datastore for entry in wanted}))
        return found

    # --- change -------------------------------------------------------------------------------

    @patient
    async def create(self, volume_id: str, spec: VolumeSpec, *, actor: str) -> Operation:
        """Make a volume; sizes, names and space are checked before it begins. Its size is rounded
        up to whole sectors of 4 KiB, which its spec then says: a disk of other sizes can't be
        opened past the page cache if the datastore's disks have such sectors."""
        spec = msgspec.structs.replace(spec, size_bytes=whole_blocks(spec.size_bytes))
        survey = await self.survey(
            volume_id, spec, self._source_image(spec), self.source_volume(spec)
        )
        image = self._source_image(spec)
        origin = self.source_volume(spec)
        held, place, room = self.prepare(volume_id, spec, image, origin, survey)

        async def work(context: OperationContext) -> None:
            async with self._datastores.using(spec.datastore):
                fill: Callable[[Path], Awaitable[object]]
                if origin is not None:
                    fill = partial(self.fill_copy, context, spec, origin, room)
                elif image is not None:
                    fill = partial(self._fill_image, context, spec, image, room)
                else:
                    fill = partial(self._fill_blank, spec)
                await self.make(context, volume_id, spec, place, fill)

        return self.begin("volume.create", volume_id, work, actor, held=held, cancellable=True)

    async def survey(
        self,
        volume_id: str,
        spec: VolumeSpec,
        image: ImageEntry | None,
        origin: VolumeEntry | None,
    ) -> Survey:
        """Read the files that `prepare` depends on; anything read earlier may be out of date
        afterwards.
        """
        place = self._datastores.layout_for(spec.datastore).volume(volume_id, spec.format)
        layers = self._catalogue.chain(origin) if origin is not None else ()
        needed = await self._datastores.probe(
            origin.datastore if origin is not None else spec.datastore,
            lambda: _needed_bytes(spec, image, origin, layers),
        )
        stray = await self._datastores.probe(spec.datastore, lambda: exists(place.data))
        await self._capacity.measure(spec.datastore)
        return Survey(needed, stray)

    def prepare(
        self,
        volume_id: str,
        spec: VolumeSpec,
        image: ImageEntry | None,
        origin: VolumeEntry | None,
        survey: Survey,
        *,
        shared: bool = False,
    ) -> tuple[contextlib.ExitStack, Place, Room]:
        """Reserve what a new volume needs, until the result is closed. With `shared`, a VM may
        continue to use the source volume.
        """
        if volume_id in self._catalogue.volumes:
            raise MicaError(ErrorCode.ALREADY_EXISTS, f"There is a volume {volume_id} already.")
        place = self._datastores.layout_for(spec.datastore).volume(volume_id, spec.format)
        if survey.stray:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"A file {place.data.name} without a description is on {spec.datastore}.",
            )
        with contextlib.ExitStack() as undo:
            room = Room(
                self._capacity, spec.datastore, survey.needed_bytes, pointer="/spec/size_bytes"
            )
            undo.callback(room.release)
            undo.enter_context(self._catalogue.locked("volume", volume_id, "created"))
            if image is not None:
                undo.enter_context(self._catalogue.reading(image.id))
            if origin is not None and shared:
                undo.enter_context(
                    self._catalogue.locked("volume", origin.id, "copied", in_use=True)
                )
            elif origin is not None:
                undo.enter_context(self._catalogue.locked("volume", origin.id, "copied"))
            return undo.pop_all(), place, room

    @patient
    async def keep(
        self, volume_id: str, *, together_with: Sequence[str] = (), actor: str
    ) -> Operation:
        """Keep a volume although no VM has named it, and others of its datastore with it: all of
        them or none.
        """
        self.checks.described(volume_id)

        async def work(context: OperationContext) -> None:
            context.commit_point()
            await self._provisional.keep_together((volume_id, *together_with))

        held = self._provisional.hold(volume_id, together_with)
        return self.begin("volume.keep", volume_id, work, actor, held=held)

    @patient
    async def delete(self, volume_id: str, *, actor: str, revision: int | None = None) -> None:
        """Delete a volume that no VM names; durable on return."""
        entry = self._catalogue.volume(volume_id)
        if entry.record is not None:
            refuse_revision(entry.record, revision)
        self._catalogue.refuse_children(volume_id)
        if (vm := self._usage.vms.vm_of_volume(volume_id)) is not None:
            raise StorageError(ErrorCode.IN_USE, f"VM {vm} names volume {volume_id}.")
        self._usage.refuse_snapshots(volume_id)
        with self._catalogue.locked("volume", volume_id, "deleted"):
            async with self._datastores.using(entry.datastore):
                dry_run.ending(None)
                del self._catalogue.volumes[volume_id]
                try:
                    await asyncio.to_thread(entry.place.remove)
                except BaseException as error:
                    self._catalogue.volumes[volume_id] = entry
                    if isinstance(error, OSError):
                        raise from_os_error(
                            error, f"Volume {volume_id} can't be deleted"
                        ) from error
                    raise
        self._bus.publish("volume.deleted", Subject(kind="volume", id=volume_id), actor=actor)

    def usable(self, volume_id: str) -> VolumeEntry:
        """A volume that can be opened; else an error with the reason."""
        entry, _ = self.checks.sound(volume_id)
        self._datastores.layout(entry.datastore)
        if (busy := self._catalogue.keeps_from_use(volume_id)) is not None:
            raise StorageError(ErrorCode.CONFLICT, f"Volume {volume_id} is being {busy}.")
        return entry

    async def make_scratch(self, volume_id: str, size_bytes: int) -> Path:
        """An empty qcow2 beside a volume, for a caller that opens it and removes its name."""
        entry, _ = self.checks.sound(volume_id)
        layout = self._datastores.layout(entry.datastore)
        path = layout.incoming / f"scratch-{secrets.token_hex(8)}.qcow2"
        with naming_datastore(entry.datastore):
            try:
                await asyncio.to_thread(make_file, path)
                await self._qemu_img.create_qcow2(path, size_bytes)
            except BaseException as error:
                await asyncio.shield(asyncio.to_thread(remove, path))
                if isinstance(error, OSError):
                    raise from_os_error(
                        error, f"No file can be created beside volume {volume_id}"
                    ) from error
                raise
        return path

    @contextlib.contextmanager
    def exporting(self, volume_id: str, *, brief: bool = False) -> Iterator[ExportedVolume]:
        """Keep a volume as it is while its data are read; `in-use` if a VM has it open. Any number
        may read it at once. A look at what there is to read is `brief`."""
        entry, _ = self.checks.at_rest(volume_id)
        chain = tuple((e.place.data, e.format.value) for e in self._catalogue.chain(entry))
        self._datastores.layout(entry.datastore)
        with self._catalogue.locked("volume", volume_id, "exported", shared=True, brief=brief):
            yield ExportedVolume(entry, chain)

    # --- work ---------------------------------------------------------------------------------

    async def make(
        self,
        context: ProgressSink,
        volume_id: str,
        spec: VolumeSpec,
        place: Place,
        fill: Callable[[Path], Awaitable[object]],
        *,
        base: tuple[VolumeEntry, VolumeRecord] | None = None,
        clone: str | None = None,
    ) -> None:
        """Make a volume from the file that `fill` fills, linked to `base`, for a `clone`; durable
        on return, nothing is left if it fails or is cancelled.
        """
        try:
            await fill(place.incoming)
        except BaseException as error:
            # In a thread that goes on: nothing may be left, even where this is a cancellation.
            await asyncio.shield(asyncio.to_thread(place.discard))
            if isinstance(error, OSError):
                raise from_os_error(error, f"Volume {volume_id} can't be made") from error
            raise
        context.commit_point()
        record = VolumeRecord(
            id=volume_id,
            created_at=clock.now(),
            revision=1,
            format=spec.format,
            allocation=spec.allocation,
            source_image=spec.source_image,
            source_volume=spec.source_volume,
            backing=Backing(volume=base[0].id, created_at=base[1].created_at) if base else None,
            clone=clone,
            delete_unless_used_s=spec.delete_unless_used_s,
        )
        try:
            await asyncio.to_thread(place.publish, record)
        except OSError as error:
            raise from_os_error(error, f"Volume {volume_id} can't be made") from error
        self._provisional.made(volume_id)
        self._catalogue.take_volume(
            VolumeEntry(
                volume_id,
                spec.datastore,
                place,
                spec.format,
                spec.size_bytes,
                record,
                backing_file=base[0].place.data.name if base else None,
                store_uuid=self._datastores.uuid(spec.datastore),
            )
        )

    async def fill_copy(
        self,
        context: ProgressSink,
        spec: VolumeSpec,
        origin: VolumeEntry,
        room: Room,
        target: Path,
        *,
        snapshot: str | None = None,
    ) -> bool:
        """Fill a new file with the content of another volume; True if they share their blocks."""
        total = origin.size_bytes
        return await copy_volume(
            self._qemu_img,
            origin,
            target,
            (spec.format, spec.allocation, spec.size_bytes),
            room,
            on_fraction=lambda part: context.advance(int(total * part), total, stage="copy"),
            chain=self._catalogue.chain(origin),
            snapshot=snapshot,
        )

    async def _fill_blank(self, spec: VolumeSpec, target: Path) -> None:
        await asyncio.to_thread(make_file, target)
        if spec.format is VolumeFormat.QCOW2:
            await self._qemu_img.create_qcow2(
                target,
                spec.size_bytes,
                thick=spec.allocation is Allocation.THICK,
            )
        await asyncio.to_thread(finish, target, (spec.format, spec.allocation, spec.size_bytes))

    async def _fill_image(
        self,
        context: OperationContext,
        spec: VolumeSpec,
        source: ImageEntry,
        room: Room,
        target: Path,
    ) -> None:
        assert source.record is not None
        await asyncio.to_thread(make_file, target)
        total = source.record.virtual_size_bytes
        thick = spec.allocation is Allocation.THICK
        shape: Shape = (spec.format, spec.allocation, spec.size_bytes)
        disk = (source.place.data, _DISK_IMAGES[source.format])
        limit = await room.for_copy(self._qemu_img, disk, shape)
        await self._qemu_img.convert(
            *disk,
            target,
            spec.format.value,
            thick=thick,
            on_fraction=lambda part: context.advance(int(total * part), total, stage="convert"),
            file_bytes=limit,
        )
        if spec.size_bytes > total:
            await self._qemu_img.resize(
                target, spec.format.value, spec.size_bytes, shrink=False, thick=thick
            )
        context.advance(0, stage="finish")
        await asyncio.to_thread(finish, target, shape)

    # --- small parts --------------------------------------------------------------------------

    def begin(
        self,
        kind: str,
        volume_id: str,
        work: Work,
        actor: str,
        *,
        held: contextlib.ExitStack | None = None,
        cancellable: bool = False,
    ) -> Operation:
        """Begin an operation on a volume; see OperationRegistry."""
        return self._operations.begin(
            kind,
            Subject(kind="volume", id=volume_id),
            work,
            actor=actor,
            cancellable=cancellable,
            held=held,
        )

    def _source_image(self, spec: VolumeSpec) -> ImageEntry | None:
        if spec.source_image is None:
            return None
        pointer = "/spec/source_image"
        source = self._catalogue.images.get(spec.source_image)
        if source is None:
            raise MicaError.field(pointer, f"There is no image {spec.source_image}.")
        if source.record is None or source.reason is not None:
            raise MicaError.field(
                pointer, f"Image {source.id} can't be used: {source.reason}.", ErrorCode.CONFLICT
            )
        if source.format not in _DISK_IMAGES:
            raise MicaError.field(pointer, f"Image {source.id} ({source.format}) is not a disk.")
        if spec.size_bytes < source.record.virtual_size_bytes:
            raise MicaError.field(
                "/spec/size_bytes",
                f"Image {source.id} needs at least {source.record.virtual_size_bytes} bytes.",
            )
        return source

    def source_volume(self, spec: VolumeSpec) -> VolumeEntry | None:
        """The volume to copy for a new one; MicaError if it can't be copied."""
        if spec.source_volume is None:
            return None
        pointer = "/spec/source_volume"
        if spec.source_image is not None:
            raise MicaError.field(pointer, "Name either an image or a volume as the source.")
        if spec.source_volume not in self._catalogue.volumes:
            raise MicaError.field(pointer, f"There is no volume {spec.source_volume}.")
        try:
            source, _ = self.checks.at_rest(spec.source_volume)
        except MicaError as error:
            raise MicaError.field(pointer, error.problem.detail, error.problem.code) from error
        if spec.size_bytes < source.size_bytes:
            raise MicaError.field(
                "/spec/size_bytes",
                f"Volume {source.id} needs at least {source.size_bytes} bytes.",
            )
        return source

    def _describe(
        self, entry: VolumeEntry, allocated_bytes: int, children: tuple[str, ...]
    ) -> Volume:
        record = entry.record
        sectors = -(-entry.size_bytes // SECTOR_BYTES)
        return Volume(
            id=entry.id,
            revision=record.revision if record else 0,
            created_at=record.created_at if record else clock.format_time(0),
            spec=VolumeSpec(
                datastore=entry.datastore,
                size_bytes=max(MIN_VOLUME_BYTES, sectors * SECTOR_BYTES),
                format=entry.format,
                allocation=record.allocation if record else Allocation.THIN,
                source_image=record.source_image if record else None,
                source_volume=record.source_volume if record else None,
                delete_unless_used_s=record.delete_unless_used_s if record else None,
            ),
            status=VolumeStatus(
                allocated_bytes=allocated_bytes,
                attached_to=self._usage.vms.vm_of_volume(entry.id),
                reason=self._catalogue.fault(entry),
                backing=record.backing.volume if record and record.backing else None,
                children=children,
                last_check=record.last_check if record else None,
                expires_at=self._provisional.expires_at(entry),
            ),
        )


def _needed_bytes(
    spec: VolumeSpec,
    image: ImageEntry | None,
    origin: VolumeEntry | None,
    layers: Sequence[VolumeEntry],
) -> int:
    """Space to reserve (blocking): all of a thick volume, and of a thin one as much as its source
    may fill.
    """
    if origin is not None:
        return space_for_copy(origin, (spec.format, spec.allocation, spec.size_bytes), layers)
    if spec.allocation is Allocation.THICK:
        return spec.size_bytes + qcow2_overhead(spec.size_bytes)
    if image is None or image.record is None:
        return QCOW2_OVERHEAD_BYTES
    if image.format is ImageFormat.QCOW2:
        filled = min(2 * image.record.size_bytes, image.record.virtual_size_bytes)
    else:
        filled = image.record.virtual_size_bytes
    return filled + QCOW2_OVERHEAD_BYTES


def refuse_revision(record: VolumeRecord, revision: int | None) -> None:
    """Raise `revision-mismatch` if the volume has changed since it was read."""
    if revision is not None and revision != record.revision:
        raise MicaError(
            ErrorCode.REVISION_MISMATCH,
            f"Volume {record.id} has revision {record.revision}, not {revision}; read it again.",
        )
