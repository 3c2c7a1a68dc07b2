"""Volumes: virtual disks in qcow2 or raw files, blank or filled from an image."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path

from vmkernel import clock
from vmkernel.host.errors import from_os_error
from vmkernel.host.qemu_img import QemuImg
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
from vmkernel.operations import OperationContext, OperationRegistry, Work
from vmkernel.storage.catalogue import Catalogue, ImageEntry, VolumeEntry
from vmkernel.storage.datastores import Datastores
from vmkernel.storage.errors import StorageError
from vmkernel.storage.layout import Place
from vmkernel.storage.records import VolumeRecord
from vmkernel.storage.users import Users
from vmkernel.storage.volume_files import (
    QCOW2_OVERHEAD_BYTES,
    Shape,
    allocated_bytes,
    copy_volume,
    finish,
    make_file,
    space_for_copy,
)

__all__ = ["MAX_VOLUME_BYTES", "MIN_VOLUME_BYTES", "Volumes", "refuse_revision"]

MIN_VOLUME_BYTES = 1 << 20
MAX_VOLUME_BYTES = 1 << 50
_SECTOR_BYTES = 512
_DISK_IMAGES = {
    ImageFormat.QCOW2: "qcow2",
    ImageFormat.RAW: "raw",
    ImageFormat.ISO: "raw",
}


class Volumes:
    """Owns the volumes of all datastores.

    With `worker_uid`, qemu-img runs as that uid: it reads images that came from outside.
    """

    def __init__(
        self,
        datastores: Datastores,
        catalogue: Catalogue,
        operations: OperationRegistry,
        users: Users,
        qemu_img: QemuImg,
        *,
        worker_uid: int | None = None,
    ) -> None:
        self._datastores = datastores
        self._catalogue = catalogue
        self._operations = operations
        self._users = users
        self._qemu_img = qemu_img
        self._worker_uid = worker_uid

    # --- reading ------------------------------------------------------------------------------

    async def list(
        self, datastore: str | None, after: str | None, limit: int
    ) -> tuple[tuple[Volume, ...], bool]:
        """The volumes by id, of one datastore or of all, and whether others follow."""
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
        allocated = await asyncio.to_thread(
            lambda: [allocated_bytes(entry.place.data) for entry in wanted]
        )
        volumes = (self._describe(*pair) for pair in zip(wanted, allocated, strict=True))
        return tuple(volumes), len(entries) > limit

    async def get(self, volume_id: str) -> Volume:
        """One volume."""
        entry = self._catalogue.volume(volume_id)
        return self._describe(entry, await asyncio.to_thread(allocated_bytes, entry.place.data))

    # --- change -------------------------------------------------------------------------------

    async def create(self, volume_id: str, spec: VolumeSpec, *, actor: str) -> Operation:
        """Make a volume; sizes, names and space are checked before it begins."""
        image = self._source_image(spec)
        origin = self._source_volume(spec)
        held, place = self._prepare(volume_id, spec, image, origin)

        async def work(context: OperationContext) -> None:
            with held:
                async with self._datastores.using(spec.datastore):
                    await self._create(context, volume_id, spec, place, image, origin)

        return self.begin("volume.create", volume_id, work, actor, held, cancellable=True)

    async def copy(
        self,
        source_id: str,
        new_id: str,
        *,
        datastore: str | None = None,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Make `new_id` a copy of a volume that no running VM has, within somebody's operation:
        durable on return, nothing left where it fails or is cancelled."""
        source, record = self.writable(source_id)
        spec = VolumeSpec(
            datastore=datastore or source.datastore,
            size_bytes=self._describe(source, 0).spec.size_bytes,
            format=source.format,
            allocation=record.allocation,
            source_volume=source_id,
        )
        origin = self._source_volume(spec)
        held, place = self._prepare(new_id, spec, None, origin)
        with held:
            async with self._datastores.using(spec.datastore):
                await self._create(_Told(on_progress), new_id, spec, place, None, origin)

    def _prepare(
        self,
        volume_id: str,
        spec: VolumeSpec,
        image: ImageEntry | None,
        origin: VolumeEntry | None,
    ) -> tuple[contextlib.ExitStack, Place]:
        """Set aside what a new volume needs, until the result is closed."""
        if volume_id in self._catalogue.volumes:
            raise MicaError(ErrorCode.ALREADY_EXISTS, f"There is a volume {volume_id} already.")
        layout = self._datastores.layout_for(spec.datastore)
        place = layout.volume(volume_id, spec.format)
        if place.data.exists():
            raise StorageError(
                ErrorCode.CONFLICT,
                f"A file {place.data.name} without a description lies on {spec.datastore}.",
            )
        with contextlib.ExitStack() as undo:
            undo.callback(
                self._datastores.reserve(
                    spec.datastore, _needed_bytes(spec, image, origin), pointer="/spec/size_bytes"
                )
            )
            undo.enter_context(self._catalogue.claimed("volume", volume_id, "created"))
            if image is not None:
                undo.enter_context(self._catalogue.reading(image.id))
            if origin is not None:
                undo.enter_context(self._catalogue.claimed("volume", origin.id, "copied"))
            return undo.pop_all(), place

    async def delete(self, volume_id: str, *, revision: int | None) -> None:
        """Delete a volume that no VM names; durable on return."""
        entry = self._catalogue.volume(volume_id)
        if entry.record is not None:
            refuse_revision(entry.record, revision)
        if (vm := self._users.vm_of_volume(volume_id)) is not None:
            raise StorageError(ErrorCode.IN_USE, f"VM {vm} names volume {volume_id}.")
        self._users.refuse_snapshots(volume_id)
        with self._catalogue.claimed("volume", volume_id, "deleted"):
            async with self._datastores.using(entry.datastore):
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

    def usable(self, volume_id: str) -> VolumeEntry:
        """A volume that can be opened; the reason why not otherwise."""
        entry, _ = self.sound(volume_id)
        self._datastores.layout(entry.datastore)
        if (busy := self._catalogue.busy("volume", volume_id)) is not None:
            raise StorageError(ErrorCode.CONFLICT, f"Volume {volume_id} is being {busy}.")
        return entry

    async def make_scratch(self, volume_id: str, size_bytes: int) -> Path:
        """An empty qcow2 beside a volume, for whoever opens it and takes its name away."""
        entry, _ = self.sound(volume_id)
        layout = self._datastores.layout(entry.datastore)
        path = layout.incoming / f"scratch-{secrets.token_hex(8)}.qcow2"
        try:
            user = await asyncio.to_thread(make_file, path, self._worker_uid)
            await self._qemu_img.create_qcow2(path, size_bytes, user=user)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))
            if isinstance(error, OSError):
                raise from_os_error(
                    error, f"Nothing can be put beside volume {volume_id}"
                ) from error
            raise
        return path

    def sound(self, volume_id: str) -> tuple[VolumeEntry, VolumeRecord]:
        """A volume with a description and a file; `conflict`, with the reason, otherwise."""
        entry = self._catalogue.volume(volume_id)
        if entry.reason is not None or entry.record is None:
            raise StorageError(
                ErrorCode.CONFLICT, f"Volume {volume_id} can't be used: {entry.reason}."
            )
        if entry.record.moving_to is not None:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"Volume {volume_id} was being moved to a datastore that is not there: bring that"
                " back, or delete it from this host, to have the volume here.",
            )
        return entry, entry.record

    def writable(self, volume_id: str) -> tuple[VolumeEntry, VolumeRecord]:
        """A sound volume that no VM has open; `in-use` otherwise."""
        found = self.sound(volume_id)
        if self._users.volume_is_open(volume_id):
            raise StorageError(
                ErrorCode.IN_USE,
                f"VM {self._users.vm_of_volume(volume_id)} has volume {volume_id} open; "
                "shut it down first.",
            )
        return found

    # --- work ---------------------------------------------------------------------------------

    async def _create(
        self,
        context: OperationContext | _Told,
        volume_id: str,
        spec: VolumeSpec,
        place: Place,
        image: ImageEntry | None,
        origin: VolumeEntry | None,
    ) -> None:
        shape: Shape = (spec.format, spec.allocation, spec.size_bytes)
        try:
            if origin is not None:
                total = origin.size_bytes
                await copy_volume(
                    self._qemu_img,
                    origin,
                    place.incoming,
                    shape,
                    worker_uid=self._worker_uid,
                    on_fraction=lambda part: context.advance(
                        int(total * part), total, stage="copy"
                    ),
                )
            else:
                user = await asyncio.to_thread(make_file, place.incoming, self._worker_uid)
                if image is not None:
                    await self._fill(context, spec, place.incoming, image, user)
                elif spec.format is VolumeFormat.QCOW2:
                    await self._qemu_img.create_qcow2(
                        place.incoming,
                        spec.size_bytes,
                        thick=spec.allocation is Allocation.THICK,
                        user=user,
                    )
                context.advance(0, stage="finish")
                await asyncio.to_thread(finish, place.incoming, shape)
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
        )
        try:
            await asyncio.to_thread(place.publish, record)
        except OSError as error:
            raise from_os_error(error, f"Volume {volume_id} can't be made") from error
        self._catalogue.volumes[volume_id] = VolumeEntry(
            volume_id,
            spec.datastore,
            place,
            spec.format,
            spec.size_bytes,
            record,
            store_uuid=self._datastores.uuid(spec.datastore),
        )

    async def _fill(
        self,
        context: OperationContext | _Told,
        spec: VolumeSpec,
        target: Path,
        source: ImageEntry,
        user: int | None,
    ) -> None:
        assert source.record is not None
        total = source.record.virtual_size_bytes
        thick = spec.allocation is Allocation.THICK
        await self._qemu_img.convert(
            source.place.data,
            _DISK_IMAGES[source.format],
            target,
            spec.format.value,
            thick=thick,
            on_fraction=lambda part: context.advance(int(total * part), total, stage="convert"),
            user=user,
        )
        if spec.size_bytes > total:
            await self._qemu_img.resize(
                target, spec.format.value, spec.size_bytes, shrink=False, thick=thick, user=user
            )

    # --- small parts --------------------------------------------------------------------------

    def begin(
        self,
        kind: str,
        volume_id: str,
        work: Work,
        actor: str,
        held: contextlib.ExitStack,
        *,
        cancellable: bool,
    ) -> Operation:
        """Begin an operation on a volume; `held` is closed where it can't begin."""
        try:
            return self._operations.begin(
                kind,
                Subject(kind="volume", id=volume_id),
                work,
                actor=actor,
                cancellable=cancellable,
            )
        except BaseException:
            held.close()
            raise

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
            raise MicaError.field(pointer, f"Image {source.id} ({source.format}) is no disk.")
        if spec.size_bytes < source.record.virtual_size_bytes:
            raise MicaError.field(
                "/spec/size_bytes",
                f"Image {source.id} needs at least {source.record.virtual_size_bytes} bytes.",
            )
        return source

    def _source_volume(self, spec: VolumeSpec) -> VolumeEntry | None:
        if spec.source_volume is None:
            return None
        pointer = "/spec/source_volume"
        if spec.source_image is not None:
            raise MicaError.field(pointer, "Name either an image or a volume as the source.")
        if spec.source_volume not in self._catalogue.volumes:
            raise MicaError.field(pointer, f"There is no volume {spec.source_volume}.")
        try:
            source, _ = self.writable(spec.source_volume)
        except MicaError as error:
            raise MicaError.field(pointer, error.problem.detail, error.problem.code) from error
        if spec.size_bytes < source.size_bytes:
            raise MicaError.field(
                "/spec/size_bytes",
                f"Volume {source.id} needs at least {source.size_bytes} bytes.",
            )
        return source

    def _describe(self, entry: VolumeEntry, allocated_bytes: int) -> Volume:
        record = entry.record
        sectors = -(-entry.size_bytes // _SECTOR_BYTES)
        return Volume(
            id=entry.id,
            revision=record.revision if record else 0,
            created_at=record.created_at if record else clock.format_time(0),
            spec=VolumeSpec(
                datastore=entry.datastore,
                size_bytes=max(MIN_VOLUME_BYTES, sectors * _SECTOR_BYTES),
                format=entry.format,
                allocation=record.allocation if record else Allocation.THIN,
                source_image=record.source_image if record else None,
                source_volume=record.source_volume if record else None,
            ),
            status=VolumeStatus(
                allocated_bytes=allocated_bytes,
                attached_to=self._users.vm_of_volume(entry.id),
                reason=entry.reason,
                last_check=record.last_check if record else None,
            ),
        )


class _Told:
    """What `_create` tells of its progress where the operation is somebody else's."""

    def __init__(self, on_progress: Callable[[int, int], None]) -> None:
        self._on_progress = on_progress

    def advance(self, done: int, total: int = 0, *, stage: str = "") -> None:
        """See OperationContext."""
        del stage
        self._on_progress(done, total)

    def commit_point(self) -> None:
        """See OperationContext."""


def _needed_bytes(spec: VolumeSpec, image: ImageEntry | None, origin: VolumeEntry | None) -> int:
    """Space to set aside: all of a thick volume, and as much of a thin one as its source may
    fill."""
    if origin is not None:
        return space_for_copy(origin, (spec.format, spec.allocation, spec.size_bytes))
    if spec.allocation is Allocation.THICK:
        return spec.size_bytes + QCOW2_OVERHEAD_BYTES
    if image is None or image.record is None:
        return QCOW2_OVERHEAD_BYTES
    if image.format is ImageFormat.QCOW2:
        filled = min(2 * image.record.size_bytes, image.record.virtual_size_bytes)
    else:
        filled = image.record.virtual_size_bytes
    return filled + QCOW2_OVERHEAD_BYTES


def refuse_revision(record: VolumeRecord, revision: int | None) -> None:
    """Raise `revision-mismatch` where the volume has changed since it was read."""
    if revision is not None and revision != record.revision:
        raise MicaError(
            ErrorCode.REVISION_MISMATCH,
            f"Volume {record.id} has revision {record.revision}, not {revision}; read it again.",
        )
