"""Volumes: virtual disks in qcow2 or raw files, blank or filled from an image."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec

from vmkernel import clock
from vmkernel.host.errors import from_os_error
from vmkernel.host.files import allocate
from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import (
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
from vmkernel.storage.catalogue import Catalogue, ImageEntry, VolumeEntry, volume_size
from vmkernel.storage.datastores import Datastores
from vmkernel.storage.errors import StorageError
from vmkernel.storage.layout import Place
from vmkernel.storage.records import RecordError, VolumeRecord
from vmkernel.storage.users import Users

__all__ = ["MAX_VOLUME_BYTES", "MIN_VOLUME_BYTES", "Volumes"]

MIN_VOLUME_BYTES = 1 << 20
MAX_VOLUME_BYTES = 1 << 50
_SECTOR_BYTES = 512
_QCOW2_OVERHEAD_BYTES = 1 << 20
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
        allocated = await asyncio.to_thread(lambda: [_allocated(entry) for entry in wanted])
        volumes = (self._describe(*pair) for pair in zip(wanted, allocated, strict=True))
        return tuple(volumes), len(entries) > limit

    async def get(self, volume_id: str) -> Volume:
        """One volume."""
        entry = self._catalogue.volume(volume_id)
        return self._describe(entry, await asyncio.to_thread(_allocated, entry))

    # --- change -------------------------------------------------------------------------------

    async def create(self, volume_id: str, spec: VolumeSpec, *, actor: str) -> Operation:
        """Make a volume; sizes, names and space are checked before it begins."""
        if volume_id in self._catalogue.volumes:
            raise MicaError(ErrorCode.ALREADY_EXISTS, f"There is a volume {volume_id} already.")
        layout = self._datastores.layout_for(spec.datastore)
        source = self._source(spec)
        place = layout.volume(volume_id, spec.format)
        if place.data.exists():
            raise StorageError(
                ErrorCode.CONFLICT,
                f"A file {place.data.name} without a description lies on {spec.datastore}.",
            )
        with contextlib.ExitStack() as undo:
            release = self._datastores.reserve(
                spec.datastore, _needed_bytes(spec, source), pointer="/spec/size_bytes"
            )
            undo.callback(release)
            undo.enter_context(self._catalogue.claimed("volume", volume_id, "created"))
            if source is not None:
                undo.enter_context(self._catalogue.reading(source.id))
            held = undo.pop_all()

            async def work(context: OperationContext) -> None:
                with held:
                    async with self._datastores.using(spec.datastore):
                        await self._create(context, volume_id, spec, place, source)

            return self._begin("volume.create", volume_id, work, actor, held, cancellable=True)

    async def resize(
        self,
        volume_id: str,
        size_bytes: int,
        *,
        revision: int | None,
        allow_shrink: bool,
        actor: str,
    ) -> Operation:
        """Change the size of a volume that no running VM has."""
        entry, record = self._usable(volume_id)
        _refuse_revision(record, revision)
        if not MIN_VOLUME_BYTES <= size_bytes <= MAX_VOLUME_BYTES or size_bytes % _SECTOR_BYTES:
            raise MicaError.field(
                "/spec/size_bytes",
                f"The size must be a multiple of {_SECTOR_BYTES} from {MIN_VOLUME_BYTES} to "
                f"{MAX_VOLUME_BYTES}.",
            )
        shrink = size_bytes < entry.size_bytes
        if shrink and not allow_shrink:
            raise MicaError.field(
                "/spec/size_bytes",
                f"Volume {volume_id} has {entry.size_bytes} bytes; to cut its end off, "
                "set allow_shrink.",
                ErrorCode.CONFLICT,
            )
        if self._users.volume_is_open(volume_id):
            raise StorageError(
                ErrorCode.IN_USE,
                f"VM {self._users.vm_of_volume(volume_id)} has volume {volume_id} open; "
                "shut it down first.",
            )
        grown = max(0, size_bytes - entry.size_bytes) if entry.format is VolumeFormat.RAW else 0
        with contextlib.ExitStack() as undo:
            undo.callback(
                self._datastores.reserve(entry.datastore, grown, pointer="/spec/size_bytes")
            )
            undo.enter_context(self._catalogue.claimed("volume", volume_id, "resized"))
            held = undo.pop_all()

            async def work(context: OperationContext) -> None:
                with held:
                    async with self._datastores.using(entry.datastore):
                        context.advance(0, stage="resize")
                        await self._resize(entry, record, size_bytes, shrink=shrink)

            return self._begin("volume.resize", volume_id, work, actor, held, cancellable=False)

    async def delete(self, volume_id: str, *, revision: int | None) -> None:
        """Delete a volume that no VM names; durable on return."""
        entry = self._catalogue.volume(volume_id)
        if entry.record is not None:
            _refuse_revision(entry.record, revision)
        if (vm := self._users.vm_of_volume(volume_id)) is not None:
            raise StorageError(ErrorCode.IN_USE, f"VM {vm} names volume {volume_id}.")
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
        entry, _ = self._usable(volume_id)
        self._datastores.layout(entry.datastore)
        if (busy := self._catalogue.busy("volume", volume_id)) is not None:
            raise StorageError(ErrorCode.CONFLICT, f"Volume {volume_id} is being {busy}.")
        return entry

    # --- work ---------------------------------------------------------------------------------

    async def _create(
        self,
        context: OperationContext,
        volume_id: str,
        spec: VolumeSpec,
        place: Place,
        source: ImageEntry | None,
    ) -> None:
        try:
            user = await asyncio.to_thread(_make_file, place.incoming, self._worker_uid)
            if source is not None:
                await self._fill(context, spec, place.incoming, source, user)
            elif spec.format is VolumeFormat.QCOW2:
                await self._qemu_img.create_qcow2(place.incoming, spec.size_bytes, user=user)
            context.advance(0, stage="finish")
            await asyncio.to_thread(_finish, place.incoming, spec)
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
            source_image=spec.source_image,
        )
        try:
            await asyncio.to_thread(place.publish, record)
        except OSError as error:
            raise from_os_error(error, f"Volume {volume_id} can't be made") from error
        self._catalogue.volumes[volume_id] = VolumeEntry(
            volume_id, spec.datastore, place, spec.format, spec.size_bytes, record
        )

    async def _fill(
        self,
        context: OperationContext,
        spec: VolumeSpec,
        target: Path,
        source: ImageEntry,
        user: int | None,
    ) -> None:
        assert source.record is not None
        total = source.record.virtual_size_bytes
        await self._qemu_img.convert(
            source.place.data,
            _DISK_IMAGES[source.format],
            target,
            spec.format.value,
            on_fraction=lambda part: context.advance(int(total * part), total, stage="convert"),
            user=user,
        )
        if spec.size_bytes > total:
            await self._qemu_img.resize(
                target, spec.format.value, spec.size_bytes, shrink=False, user=user
            )

    async def _resize(
        self, entry: VolumeEntry, record: VolumeRecord, size_bytes: int, *, shrink: bool
    ) -> None:
        path = entry.place.data
        owner = path.lstat().st_uid
        user = None if self._worker_uid is None or owner == os.getuid() else owner
        await self._qemu_img.resize(path, entry.format.value, size_bytes, shrink=shrink, user=user)
        changed = msgspec.structs.replace(record, revision=record.revision + 1)

        def settle() -> int:
            _allocate_raw(path, entry.format, size_bytes)
            _sync(path)
            entry.place.describe(changed)
            return volume_size(path, entry.format)

        try:
            actual = await asyncio.to_thread(settle)
        except RecordError as error:
            raise StorageError(
                ErrorCode.UNAVAILABLE, f"Volume {entry.id} can't be read any more: {error}."
            ) from error
        except OSError as error:
            raise from_os_error(error, f"Volume {entry.id} can't be resized") from error
        self._catalogue.resized(entry.id, changed, actual)

    # --- small parts --------------------------------------------------------------------------

    def _begin(
        self,
        kind: str,
        volume_id: str,
        work: Work,
        actor: str,
        held: contextlib.ExitStack,
        *,
        cancellable: bool,
    ) -> Operation:
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

    def _usable(self, volume_id: str) -> tuple[VolumeEntry, VolumeRecord]:
        entry = self._catalogue.volume(volume_id)
        if entry.reason is not None or entry.record is None:
            raise StorageError(
                ErrorCode.CONFLICT, f"Volume {volume_id} can't be used: {entry.reason}."
            )
        return entry, entry.record

    def _source(self, spec: VolumeSpec) -> ImageEntry | None:
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
                source_image=record.source_image if record else None,
            ),
            status=VolumeStatus(
                allocated_bytes=allocated_bytes,
                attached_to=self._users.vm_of_volume(entry.id),
                reason=entry.reason,
            ),
        )


def _needed_bytes(spec: VolumeSpec, source: ImageEntry | None) -> int:
    """Space to set aside: all of a raw volume, and as much of a qcow2 as its image may fill."""
    if spec.format is VolumeFormat.RAW:
        return spec.size_bytes
    if source is None or source.record is None:
        return _QCOW2_OVERHEAD_BYTES
    if source.format is ImageFormat.QCOW2:
        filled = min(2 * source.record.size_bytes, source.record.virtual_size_bytes)
    else:
        filled = source.record.virtual_size_bytes
    return filled + _QCOW2_OVERHEAD_BYTES


def _refuse_revision(record: VolumeRecord, revision: int | None) -> None:
    if revision is not None and revision != record.revision:
        raise MicaError(
            ErrorCode.REVISION_MISMATCH,
            f"Volume {record.id} has revision {record.revision}, not {revision}; read it again.",
        )


def _allocated(entry: VolumeEntry) -> int:
    try:
        return entry.place.data.lstat().st_blocks * 512
    except OSError:
        return 0


def _make_file(path: Path, worker_uid: int | None) -> int | None:
    """A new empty file that the worker may write; the uid to write it as."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if worker_uid is not None:
            os.fchown(fd, worker_uid, worker_uid)
    finally:
        os.close(fd)
    return worker_uid


def _finish(path: Path, spec: VolumeSpec) -> None:
    """Bring a raw file to its size with all its blocks, and make the file durable."""
    if spec.format is VolumeFormat.RAW:
        with path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) < spec.size_bytes:
                file.truncate(spec.size_bytes)
    _allocate_raw(path, spec.format, spec.size_bytes)
    _sync(path)


def _allocate_raw(path: Path, volume_format: VolumeFormat, size_bytes: int) -> None:
    if volume_format is VolumeFormat.RAW:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            allocate(fd, size_bytes)
        finally:
            os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
