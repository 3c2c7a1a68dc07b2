"""Images: imported from streams, servers and volumes; verified, and never changed.

upload   one request: received, then made (`import_pipeline.py`)
pull     fetched by a worker, then made
capture  made of a volume that nothing has open
(resumable uploads: `resumable_uploads.py`)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vmkernel import clock, dry_run
from vmkernel.events import EventBus
from vmkernel.host.errors import from_os_error
from vmkernel.host.extents import data_extents
from vmkernel.host.files import exists, remove, status
from vmkernel.host.qemu_img import QemuImg
from vmkernel.host.worker import Confinement, Workers
from vmkernel.model import (
    Allocation,
    Compression,
    DataExtent,
    DataMap,
    ErrorCode,
    Image,
    ImageCapture,
    ImageFormat,
    ImageOrigin,
    ImagePull,
    ImageSource,
    ImageSpec,
    ImageStatus,
    MicaError,
    Operation,
    SourceFormat,
    StoredData,
    Subject,
    VolumeFormat,
)
from vmkernel.operations import OperationContext, OperationRegistry
from vmkernel.operations.places import Places
from vmkernel.storage.catalogue import Catalogue, ImageEntry
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.datastores.room import Room
from vmkernel.storage.errors import StorageError
from vmkernel.storage.images.download import Downloader
from vmkernel.storage.images.staging import create_staged, file_sha256, settle_file
from vmkernel.storage.images.upload import MAX_UPLOADS, UPLOADS_EACH, Uploader
from vmkernel.storage.layout import Layout
from vmkernel.storage.patience import patient
from vmkernel.storage.usage import VmUsage
from vmkernel.storage.volumes.service import ExportedVolume, Volumes
from vmkernel.text import clean

if TYPE_CHECKING:
    from vmkernel.storage.images.import_pipeline import ImageImporter

__all__ = ["Images"]

_UNKNOWN_SHA256 = "0" * 64
_PULL_MEMORY_BYTES = 512 << 20
_EXTENTS_MAX = 1024
"""Per answer: some 40 KiB."""
_GAP_BYTES = 1 << 20
"""Reading that many zeros takes no longer than requesting the next piece."""
_CAPTURED = {ImageFormat.QCOW2: SourceFormat.QCOW2, ImageFormat.RAW: SourceFormat.RAW}
Receive = Callable[[OperationContext], Awaitable[None]]
MAX_PULLS, PULLS_EACH = 16, 4
"""Each is a process with up to _PULL_MEMORY_BYTES."""


class Images:
    """Owns the images of all datastores."""

    def __init__(
        self,
        datastores: Datastores,
        capacity: Capacity,
        catalogue: Catalogue,
        operations: OperationRegistry,
        bus: EventBus,
        usage: VmUsage,
        volumes: Volumes,
        importer: Callable[[], ImageImporter],
        qemu_img: QemuImg,
        workers: Workers,
    ) -> None:
        self._datastores = datastores
        self._capacity = capacity
        self._catalogue = catalogue
        self._operations = operations
        self._bus = bus
        self._usage = usage
        self._volumes = volumes
        self._importer = importer
        self._qemu_img = qemu_img
        self._workers = workers
        self._uploader = Uploader()
        self._downloader = Downloader()
        self._coming = Places("images are being made", total=MAX_UPLOADS, each=UPLOADS_EACH)
        self._pulls = Places("images are being fetched", total=MAX_PULLS, each=PULLS_EACH)

    async def stop(self) -> None:
        """Stop the threads."""
        self._uploader.close()
        await self._downloader.stop()

    def list(self, datastore: str | None) -> tuple[Image, ...]:
        """The images of one datastore or of all, by id."""
        found = [
            self._describe(entry)
            for entry in self._catalogue.images.values()
            if datastore is None or entry.datastore == datastore
        ]
        return tuple(sorted(found, key=lambda image: image.id))

    def get(self, image_id: str) -> Image:
        return self._describe(self._catalogue.image(image_id))

    # --- coming -------------------------------------------------------------------------------

    async def upload(
        self, image_id: str, source: ImageSource, *, actor: str
    ) -> tuple[Operation, socket.socket]:
        """Begin to receive an image; returns the operation, and the other end of the stream for the
        sender.
        """
        layout = await self._refuse_taken(image_id, source.datastore, actor)
        staged = layout.incoming / f"staged-{image_id}"
        with self._reserved(image_id, "uploaded", actor) as undo:
            release = self._capacity.reserve(
                source.datastore, source.size_bytes, pointer="/spec/size_bytes"
            )
            undo.callback(release)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.callback(ours.close)
            refused = contextlib.ExitStack()
            refused.callback(theirs.close)

            async def receive(context: OperationContext) -> None:
                digest = await self._uploader.receive(
                    ours,
                    staged,
                    source,
                    on_allocated=release,
                    on_progress=lambda done: context.advance(
                        done, source.size_bytes, stage="receive"
                    ),
                )
                await self._importer().make(context, image_id, source, staged, known_sha256=digest)

            with refused:
                operation = self._begin(
                    "image.upload", image_id, source.datastore, receive, undo, actor
                )
                refused.pop_all()
        return operation, theirs

    async def pull(self, image_id: str, pull: ImagePull, *, actor: str) -> Operation:
        """Begin to download an image from a server."""
        layout = await self._refuse_taken(image_id, pull.datastore, actor)
        with self._reserved(image_id, "pulled", actor) as undo:
            undo.callback(self._pulls.take(actor))

            async def receive(context: OperationContext) -> None:
                await self._pull(context, image_id, pull, layout)

            return self._begin("image.pull", image_id, pull.datastore, receive, undo, actor)

    @patient
    async def capture(self, image_id: str, capture: ImageCapture, *, actor: str) -> Operation:
        """Begin to make an image from a volume that nothing has open."""
        if capture.format not in _CAPTURED:
            raise MicaError.field("/spec/format", "A volume becomes a qcow2 or a raw image.")
        if capture.compress and capture.format is not ImageFormat.QCOW2:
            raise MicaError.field("/spec/compress", "Only a qcow2 image can be compressed.")
        volume = self._catalogue.volumes.get(capture.volume)
        if volume is None:
            raise MicaError.field("/spec/volume", f"There is no volume {capture.volume}.")
        datastore = capture.datastore or volume.datastore
        layout = await self._refuse_taken(image_id, datastore, actor)
        with self._reserved(image_id, "captured", actor) as undo:
            source = undo.enter_context(self._volumes.exporting(capture.volume))

            async def receive(context: OperationContext) -> None:
                async with self._datastores.using(volume.datastore, writes=False):
                    await self._capture(context, image_id, capture, source, datastore, layout)

            return self._begin("image.capture", image_id, datastore, receive, undo, actor)

    # --- going --------------------------------------------------------------------------------

    async def read(
        self, image_id: str, offset: int, length: int, *, actor: str
    ) -> tuple[StoredData, socket.socket]:
        """Begin to send a part of an image's file."""
        entry = self._usable(image_id)
        assert entry.record is not None
        data = StoredData(size_bytes=entry.record.size_bytes, etag=entry.record.sha256)
        async with contextlib.AsyncExitStack() as undo:
            undo.enter_context(self._catalogue.reading(image_id))
            await undo.enter_async_context(self._datastores.using(entry.datastore, writes=False))
            held = undo.pop_all()
        stream = await self._downloader.send(entry.place.data, offset, length, held, actor=actor)
        return data, stream

    @patient
    async def volume_data(self, volume_id: str) -> StoredData:
        """What a download of a volume's file would be; `conflict` if it isn't possible."""
        with self._volumes.exporting(volume_id, brief=True) as source:
            entry = source.entry
            try:
                info = await self._datastores.probe(
                    entry.datastore, lambda: status(entry.place.data)
                )
            except OSError as error:
                raise StorageError(
                    ErrorCode.UNAVAILABLE, f"Volume {volume_id} can't be read ({error.strerror})."
                ) from error
            if source.chain:
                raise StorageError(
                    ErrorCode.CONFLICT,
                    f"Volume {volume_id} is linked to others; make an image of it and use that.",
                )
        return StoredData(
            size_bytes=info.st_size,
            etag=f"{info.st_ino:x}-{info.st_mtime_ns:x}-{info.st_size:x}",
            format=ImageFormat(entry.format.value),
        )

    async def map(self, image_id: str, offset: int) -> DataMap:
        """Which parts of an image's file contain data."""
        entry = self._usable(image_id)
        assert entry.record is not None
        with self._catalogue.reading(image_id):
            return await self._map(
                entry.datastore,
                entry.place.data,
                offset,
                StoredData(size_bytes=entry.record.size_bytes, etag=entry.record.sha256),
            )

    @patient
    async def map_volume(self, volume_id: str, offset: int) -> DataMap:
        """Which parts of a volume's file contain data; `conflict` if it can't be downloaded."""
        with self._volumes.exporting(volume_id, brief=True) as source:
            data = await self.volume_data(volume_id)
            entry = source.entry
            return await self._map(entry.datastore, entry.place.data, offset, data)

    async def _map(self, datastore: str, path: Path, offset: int, data: StoredData) -> DataMap:
        try:
            found, following = await self._datastores.probe(
                datastore,
                lambda: data_extents(path, offset, most=_EXTENTS_MAX, gap_bytes=_GAP_BYTES),
            )
        except OSError as error:
            raise from_os_error(error, f"{path.name} can't be read") from error
        return DataMap(
            size_bytes=data.size_bytes,
            etag=data.etag,
            extents=tuple(DataExtent(offset=start, length_bytes=size) for start, size in found),
            next_offset=following,
        )

    @patient
    async def read_volume(
        self, volume_id: str, offset: int, length: int, *, actor: str
    ) -> tuple[StoredData, socket.socket]:
        """Begin to send a part of a volume's file; nothing can open it meanwhile."""
        data = await self.volume_data(volume_id)
        async with contextlib.AsyncExitStack() as undo:
            source = undo.enter_context(self._volumes.exporting(volume_id))
            await undo.enter_async_context(
                self._datastores.using(source.entry.datastore, writes=False)
            )
            held = undo.pop_all()
        stream = await self._downloader.send(
            source.entry.place.data, offset, length, held, actor=actor
        )
        return data, stream

    async def delete(self, image_id: str, *, actor: str) -> None:
        """Delete an image that is not in use; durable on return."""
        entry = self._catalogue.image(image_id)
        if vms := self._usage.vms.vms_of_image(image_id):
            raise StorageError(ErrorCode.IN_USE, f"VM {vms[0]} names image {image_id}.")
        if self._catalogue.is_read(image_id):
            raise StorageError(
                ErrorCode.IN_USE,
                f"Image {image_id} is being downloaded or copied to a volume; try again later.",
            )
        with self._catalogue.locked("image", image_id, "deleted"):
            async with self._datastores.using(entry.datastore):
                dry_run.ending(None)
                del self._catalogue.images[image_id]
                try:
                    await asyncio.to_thread(entry.place.remove)
                except BaseException as error:
                    self._catalogue.images[image_id] = entry
                    if isinstance(error, OSError):
                        raise from_os_error(error, f"Image {image_id} can't be deleted") from error
                    raise
        self._bus.publish("image.deleted", Subject(kind="image", id=image_id), actor=actor)

    # --- work ---------------------------------------------------------------------------------

    async def _pull(
        self, context: OperationContext, image_id: str, pull: ImagePull, layout: Layout
    ) -> None:
        limit = await self._capacity.unreserved_bytes(pull.datastore)
        limit = min(limit, pull.max_bytes or limit)
        staged = layout.incoming / f"staged-{image_id}"
        try:
            fd = await asyncio.to_thread(create_staged, staged)
            try:
                outcome = await self._workers.run(
                    "fetch",
                    {
                        "url": pull.url,
                        "target": fd,
                        "max_bytes": limit,
                        "chosen": limit == pull.max_bytes,
                        "ca_pem": pull.ca_pem,
                        "allow_loopback": self._workers.allow_loopback,
                    },
                    Confinement(memory_bytes=_PULL_MEMORY_BYTES, file_bytes=limit, network=True),
                    fds=(fd,),
                    user=self._workers.pull_uid,
                    on_progress=lambda done, total: context.advance(done, total, stage="fetch"),
                )
                size = os.fstat(fd).st_size
            finally:
                os.close(fd)
            if not size:
                raise MicaError(ErrorCode.TRUNCATED, "The server sent an empty file.")
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(remove, staged))
            if isinstance(error, OSError):
                raise from_os_error(error, "The image can't be stored") from error
            raise
        source = ImageSource(
            datastore=pull.datastore,
            size_bytes=size,
            sha256=pull.sha256,
            format=pull.format,
            compression=pull.compression,
        )
        url = clean(outcome.url or pull.url, 2048)
        await self._importer().make(context, image_id, source, staged, url=url)

    async def _capture(
        self,
        context: OperationContext,
        image_id: str,
        capture: ImageCapture,
        source: ExportedVolume,
        datastore: str,
        layout: Layout,
    ) -> None:
        entry = source.entry
        place = layout.image(image_id, capture.format)
        total = entry.size_bytes
        room = Room(self._capacity, datastore, 0, pointer="/spec/volume")
        try:
            os.close(await asyncio.to_thread(create_staged, place.incoming))
            shape = (VolumeFormat(capture.format.value), Allocation.THIN, total)
            limit = await room.for_copy(
                self._qemu_img,
                (entry.place.data, entry.format.value),
                shape,
                chain=source.chain,
            )
            await self._qemu_img.convert(
                entry.place.data,
                entry.format.value,
                place.incoming,
                capture.format.value,
                on_fraction=lambda part: context.advance(int(total * part), total, stage="convert"),
                compress=capture.compress,
                file_bytes=limit,
                chain=source.chain,
            )
            size = (await asyncio.to_thread(status, place.incoming)).st_size
            digest = await file_sha256(
                place.incoming, lambda done: context.advance(done, size, stage="digest")
            )
            await asyncio.to_thread(settle_file, place.incoming)
            origin = ImageOrigin(
                format=_CAPTURED[capture.format],
                compression=Compression.NONE,
                size_bytes=size,
                volume=capture.volume,
            )
            await self._importer().publish(
                context, image_id, datastore, place, capture.format, digest, total, origin
            )
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(place.discard))
            if isinstance(error, OSError):
                raise from_os_error(error, f"Image {image_id} can't be stored") from error
            raise
        finally:
            room.release()

    # --- small parts --------------------------------------------------------------------------

    async def _refuse_taken(self, image_id: str, datastore: str, actor: str) -> Layout:
        layout = self._datastores.layout_for(datastore)
        paths = [layout.image(image_id, image_format).data for image_format in ImageFormat]
        stray = await self._datastores.probe(
            datastore, lambda: next((path for path in paths if exists(path)), None)
        )
        await self._capacity.measure(datastore)
        if image_id in self._catalogue.images:
            raise MicaError(ErrorCode.ALREADY_EXISTS, f"There is an image {image_id} already.")
        self._coming.check(actor)
        if stray is not None:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"A file {stray.name} without a description is on {datastore}.",
            )
        return layout

    @contextlib.contextmanager
    def _reserved(self, image_id: str, what: str, actor: str) -> Iterator[contextlib.ExitStack]:
        """Reserve an id and a place among the transfers; `_begin` passes both on."""
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._catalogue.locked("image", image_id, what))
            undo.callback(self._coming.take(actor))
            yield undo

    def _begin(
        self,
        kind: str,
        image_id: str,
        datastore: str,
        receive: Receive,
        held: contextlib.ExitStack,
        actor: str,
    ) -> Operation:
        async def work(context: OperationContext) -> None:
            async with self._datastores.using(datastore):
                await receive(context)

        return self._operations.begin(
            kind,
            Subject(kind="image", id=image_id),
            work,
            actor=actor,
            cancellable=True,
            held=held,
        )

    def _usable(self, image_id: str) -> ImageEntry:
        entry = self._catalogue.image(image_id)
        if entry.record is None or entry.reason is not None:
            raise StorageError(
                ErrorCode.CONFLICT, f"Image {image_id} can't be used: {entry.reason}."
            )
        if (busy := self._catalogue.busy("image", image_id)) is not None:
            raise StorageError(ErrorCode.CONFLICT, f"Image {image_id} is being {busy}.")
        return entry

    def _describe(self, entry: ImageEntry) -> Image:
        record = entry.record
        return Image(
            id=entry.id,
            created_at=record.created_at if record else clock.format_time(0),
            spec=ImageSpec(
                datastore=entry.datastore,
                format=entry.format,
                size_bytes=record.size_bytes if record else 1,
                sha256=record.sha256 if record else _UNKNOWN_SHA256,
            ),
            status=ImageStatus(
                virtual_size_bytes=record.virtual_size_bytes if record else 0,
                used_by=self._usage.vms.vms_of_image(entry.id),
                origin=record.origin if record else None,
                reason=entry.reason,
            ),
        )
