"""From received data to an image: verified, unpacked, converted, published.

staged -> verify -> [unpack] -> inspect -> kept as it is ------------------> settle -> publish
          digest    worker      header  -> [replay], convert by qemu-img -> digest ->
                                tables
Whatever fails, is cancelled or crashes leaves neither image nor temporary file: they are in
`.incoming`, which is emptied at opening. A resumable upload stays with its owner until the image is
published. qemu-img never detects a format: it is given the verified one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vmkernel import clock
from vmkernel.host.errors import CommandError, from_os_error
from vmkernel.host.files import move, open_regular, remove, status
from vmkernel.host.qemu_img import QemuImg
from vmkernel.host.worker import Confinement, Workers
from vmkernel.model import (
    Allocation,
    Compression,
    ErrorCode,
    ImageFormat,
    ImageOrigin,
    ImageSource,
    MicaError,
    SourceFormat,
    VolumeFormat,
)
from vmkernel.operations import OperationContext
from vmkernel.storage.catalogue import Catalogue, ImageEntry
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.datastores.room import Room
from vmkernel.storage.formats.base import HEAD_BYTES, Data, FileData, FormatError, MemoryData
from vmkernel.storage.formats.inspection import (
    compression_of,
    format_of,
    verify_source,
)
from vmkernel.storage.formats.qcow2 import HEADER_PROBE_BYTES, read_header
from vmkernel.storage.formats.registry import format_of_source
from vmkernel.storage.images.staging import adopt, create_staged, file_sha256, settle_file
from vmkernel.storage.layout import Layout, Place
from vmkernel.storage.records import ImageRecord

__all__ = ["ImageImporter", "refuse_early"]

_UNPACK_MEMORY_BYTES = 1 << 30
_REPLAYED_FACTOR = 17
"""A 4 KiB sector of a log may be alone in a cluster of 64 KiB; one more for tables."""
_REPLAYED_ZEROS_BYTES = 64 << 20
"""A log also has ranges of zeros, which qemu writes out: of tables, a few MiB."""


@dataclass
class _Work:
    """One image in the making."""

    context: OperationContext
    image_id: str
    source: ImageSource
    layout: Layout
    staged: Path
    keep_staged: bool
    compression: Compression = Compression.NONE
    format: SourceFormat = SourceFormat.RAW
    virtual_size: int = 0
    pending_bytes: int = 0
    """The length of the log to be replayed."""
    has_tables: bool = False

    def temporary(self, name: str) -> Path:
        return self.layout.incoming / f"{name}-{self.image_id}"

    def advance(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self.context.advance(done, total, stage=stage)


class ImageImporter:
    """Makes images from staged data; the caller has locked the id and holds the datastore."""

    def __init__(
        self,
        datastores: Datastores,
        capacity: Capacity,
        catalogue: Catalogue,
        qemu_img: QemuImg,
        workers: Workers,
        *,
        worker_uid: int | None,
    ) -> None:
        self._datastores = datastores
        self._capacity = capacity
        self._catalogue = catalogue
        self._qemu_img = qemu_img
        self._workers = workers
        self._worker_uid = worker_uid

    async def make(
        self,
        context: OperationContext,
        image_id: str,
        source: ImageSource,
        staged: Path,
        *,
        keep_staged: bool = False,
        known_sha256: str | None = None,
        url: str | None = None,
    ) -> None:
        """Make the image from the complete, durable file `staged`.

        With `keep_staged`, the caller removes that file when the image exists; `known_sha256` is
        its digest if it was computed during the transfer.
        """
        layout = self._datastores.layout(source.datastore)
        work = _Work(context, image_id, source, layout, staged, keep_staged)
        made: list[Path] = []
        try:
            digest = known_sha256 or await self._verify(work)
            ready, place = await self._prepare(work, made)
            made.append(place.incoming)
            if ready == staged:
                await asyncio.to_thread(adopt, staged, place.incoming, keep=keep_staged)
                kept_digest = digest
            else:
                if ready != place.incoming:
                    await asyncio.to_thread(move, ready, place.incoming)
                size = (await asyncio.to_thread(status, place.incoming)).st_size
                kept_digest = await file_sha256(
                    place.incoming, lambda done: context.advance(done, size, stage="digest")
                )
            context.advance(0, stage="finish")
            await asyncio.to_thread(settle_file, place.incoming)
            origin = ImageOrigin(
                format=work.format,
                compression=work.compression,
                size_bytes=source.size_bytes,
                sha256=digest,
                url=url,
            )
            await self.publish(
                context,
                image_id,
                source.datastore,
                place,
                work.format.kept_as,
                kept_digest,
                work.virtual_size,
                origin,
            )
        except BaseException as error:
            leftovers = made if keep_staged else [*made, staged]
            await asyncio.shield(asyncio.to_thread(_discard, leftovers))
            if isinstance(error, OSError):
                raise from_os_error(error, f"Image {image_id} can't be stored") from error
            raise
        await asyncio.to_thread(_discard, [path for path in made if path != place.incoming])

    async def publish(
        self,
        context: OperationContext,
        image_id: str,
        datastore: str,
        place: Place,
        image_format: ImageFormat,
        sha256: str,
        virtual_size: int,
        origin: ImageOrigin,
    ) -> None:
        """Describe a complete file in `.incoming`; durable on return, must not be cancelled."""
        context.commit_point()
        try:
            size = (await asyncio.to_thread(status, place.incoming)).st_size
        except OSError as error:
            raise from_os_error(error, f"Image {image_id} can't be stored") from error
        record = ImageRecord(
            id=image_id,
            created_at=clock.now(),
            format=image_format,
            size_bytes=size,
            sha256=sha256,
            virtual_size_bytes=virtual_size,
            origin=origin,
        )
        try:
            await asyncio.to_thread(place.publish, record)
        except OSError as error:
            raise from_os_error(error, f"Image {image_id} can't be stored") from error
        self._catalogue.take_image(ImageEntry(image_id, datastore, place, image_format, record))

    # --- steps --------------------------------------------------------------------------------

    async def _verify(self, work: _Work) -> str:
        total = work.source.size_bytes
        digest = await file_sha256(
            work.staged, lambda done: work.context.advance(done, total, stage="verify")
        )
        if work.source.sha256 not in (None, digest):
            raise MicaError.field(
                "/spec/sha256",
                # Whoever had the host fetch them may not have been able to read them.
                "The SHA-256 of the data is not the declared one.",
                ErrorCode.DIGEST_MISMATCH,
            )
        return digest

    async def _prepare(self, work: _Work, made: list[Path]) -> tuple[Path, Place]:
        """Unpack, inspect, convert; returns the image's file and its future place."""
        ready = await self._unpack(work, made)
        await asyncio.to_thread(_inspect, work, ready)
        if work.has_tables:
            await self._check(work, ready)
        place = work.layout.image(work.image_id, work.format.kept_as)
        if work.format.converted:
            made.append(place.incoming)
            overlay = None if not work.pending_bytes else work.temporary("replayed")
            if overlay is not None:
                made.append(overlay)
                await self._replay(work, ready, overlay)
            await self._convert(work, ready, place.incoming, overlay)
            if ready != work.staged or not work.keep_staged:
                await asyncio.to_thread(_discard, [ready])
            ready = place.incoming
        return ready, place

    async def _unpack(self, work: _Work, made: list[Path]) -> Path:
        head = await asyncio.to_thread(_head, work.staged)
        try:
            work.compression = compression_of(head, work.source.compression, work.source.format)
        except FormatError as error:
            raise MicaError.field("/spec/compression", f"{_sentence(error)}") from error
        if work.compression is Compression.NONE:
            return work.staged
        target = work.temporary("unpacked")
        made.append(target)
        with contextlib.ExitStack() as held:
            source_fd = await asyncio.to_thread(open_regular, work.staged, os.O_RDONLY)
            held.callback(os.close, source_fd)
            target_fd = await asyncio.to_thread(create_staged, target)
            held.callback(os.close, target_fd)
            async with self._workers.places.taken(long=True):
                limit = await self._capacity.unreserved_bytes(work.source.datastore)
                await self._workers.run(
                    "unpack",
                    {
                        "source": source_fd,
                        "target": target_fd,
                        "compression": work.compression.value,
                        "limit_bytes": limit,
                    },
                    Confinement(memory_bytes=_UNPACK_MEMORY_BYTES, file_bytes=limit),
                    fds=(source_fd, target_fd),
                    user=self._worker_uid,
                    on_progress=work.advance("unpack"),
                )
        if not work.keep_staged:
            await asyncio.to_thread(_discard, [work.staged])
        return target

    async def _check(self, work: _Work, source: Path) -> None:
        """Refuse a truncated or damaged disk: qemu would read zeros for what is missing."""
        work.context.advance(0, stage="check")
        name = _qemu_name(work.format)
        try:
            report = await self._qemu_img.check(source, name, repair=None)
            if report.corruptions:  # nothing that is read of such tables can be relied on
                raise MicaError.field(
                    "/spec/format",
                    f"The data are not a usable {work.format} image: its tables have"
                    f" {report.corruptions} errors, because it was cut off or damaged. Send it"
                    " again, or repair it first with `qemu-img check -r all`.",
                )
            reach = await self._qemu_img.data_end(source, name)
        except CommandError as error:
            if (found := _of_the_data(error)) is not None:
                raise found from error
            raise
        # Padding of the last cluster, behind the disk's end, may be missing: writers cut it off.
        missing = reach - await asyncio.to_thread(lambda: status(source).st_size)
        if missing > 0:
            raise MicaError.field(
                "/spec/format",
                f"The data are not a usable {work.format} image: the last {missing} bytes of the"
                " disk are missing, because it was cut off. Send it again.",
            )

    async def _replay(self, work: _Work, source: Path, overlay: Path) -> None:
        """Complete a disk that was not closed; the source stays unchanged, as it may be needed
        again.
        """
        os.close(await asyncio.to_thread(create_staged, overlay))
        work.context.advance(0, stage="replay")
        most = work.pending_bytes * _REPLAYED_FACTOR + _REPLAYED_ZEROS_BYTES
        room = Room(self._capacity, work.source.datastore, most, pointer="/spec/size_bytes")
        try:
            work.virtual_size = await self._qemu_img.replay(
                source, _qemu_name(work.format), overlay, file_bytes=most
            )
        except CommandError as error:
            if (found := _of_the_data(error)) is not None:
                raise found from error
            raise
        finally:
            room.release()

    async def _convert(self, work: _Work, source: Path, target: Path, overlay: Path | None) -> None:
        os.close(await asyncio.to_thread(create_staged, target))
        total = work.virtual_size
        disk = (source, _qemu_name(work.format))
        shape = (VolumeFormat.QCOW2, Allocation.THIN, total)
        room = Room(self._capacity, work.source.datastore, 0, pointer="/spec/size_bytes")
        try:
            limit = await room.for_copy(self._qemu_img, disk, shape, overlay=overlay)
            await self._qemu_img.convert(
                *disk,
                target,
                "qcow2",
                on_fraction=lambda part: work.context.advance(
                    int(total * part), total, stage="convert"
                ),
                file_bytes=limit,
                overlay=overlay,
            )
        except CommandError as error:
            if (found := _of_the_data(error)) is not None:
                raise found from error
            raise
        finally:
            room.release()
        work.virtual_size = await asyncio.to_thread(_converted_size, target)


def refuse_early(source: ImageSource, head: bytes) -> None:
    """Check the first bytes of data during the transfer, so that gigabytes aren't sent in vain."""
    try:
        compression = compression_of(head, source.compression, source.format)
    except FormatError as error:
        raise MicaError.field("/spec/compression", _sentence(error)) from error
    if compression is not Compression.NONE or source.format is None:
        return
    if not source.format.converted:
        _verified(source.format, _Head(head, source.size_bytes))


class _Head(MemoryData):
    """The beginning of a file of a known length."""

    def __init__(self, head: bytes, size: int) -> None:
        super().__init__(head)
        self._size = size

    @property
    def size(self) -> int:
        return self._size


def _inspect(work: _Work, path: Path) -> None:
    fd = open_regular(path, os.O_RDONLY)
    try:
        data = FileData(fd)
        try:
            work.format = format_of(data, work.source.format)
        except FormatError as error:
            raise MicaError.field("/spec/format", _sentence(error)) from error
        work.virtual_size = _verified(work.format, data)
        found = format_of_source(work.format)
        work.pending_bytes = found.pending_bytes(data)
        work.has_tables = not work.pending_bytes and found.has_tables(data)
    finally:
        os.close(fd)


def _verified(source: SourceFormat, data: Data) -> int:
    try:
        return verify_source(source, data)
    except FormatError as error:
        raise MicaError.field(
            "/spec/format", f"The data are not a usable {source} image: {error}."
        ) from error


def _of_the_data(error: CommandError) -> MicaError | None:
    """The error for the sender if qemu-img can't read the data; None if it failed for another
    reason.
    """
    if error.problem.code is ErrorCode.UNAVAILABLE and error.returncode is not None:
        return MicaError.field("/spec/format", error.problem.detail)
    return None


def _qemu_name(source: SourceFormat) -> str:
    name = format_of_source(source).qemu_name
    assert name is not None, f"{source} is converted, and qemu-img has no name for it"
    return name


def _converted_size(path: Path) -> int:
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        try:
            return read_header(file.read(HEADER_PROBE_BYTES)).virtual_size_bytes
        except FormatError as error:
            raise MicaError(
                ErrorCode.UNAVAILABLE, f"What qemu-img made can't be read: {error}."
            ) from error


def _head(path: Path) -> bytes:
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read(HEAD_BYTES)


def _discard(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            remove(path)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
