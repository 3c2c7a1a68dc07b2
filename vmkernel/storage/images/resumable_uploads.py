"""Resumable uploads (protocol: tus 1.0), kept until their image exists.

create -> receiving --(all bytes durable)--> importing --> image, upload gone
             |  ^ part by part                   |-> refused: upload gone
             |  |                                `-> no space, host went down: kept, tried again by
             |  |                                    an empty part, or at the next start
             `--+--> deleted, or expired LIFE_S after the last byte: nothing is left
A reported offset is durable: it is in the record, which is written after the data. A new part
replaces one that still seems to be in transfer, because the client that sends it knows that the
other connection is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vmkernel import clock
from vmkernel.host.errors import from_os_error
from vmkernel.host.files import (
    allocate,
    allocated_bytes,
    create_file,
    fsync_directory,
    names,
    open_regular,
    read_limited,
    remove,
    remove_tree,
    unlink_durably,
    write_durably,
)
from vmkernel.model import (
    ErrorCode,
    MicaError,
    Operation,
    Subject,
    Upload,
    UploadChecksum,
    UploadOutcome,
    UploadSpec,
    UploadState,
    UploadStatus,
)
from vmkernel.operations import OperationContext, OperationRegistry
from vmkernel.operations.places import Places
from vmkernel.storage.catalogue import Catalogue
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.errors import StorageError
from vmkernel.storage.images.upload_chunk import ChunkReceiver
from vmkernel.storage.layout import RECORD_LIMIT
from vmkernel.storage.records import RecordError, UploadRecord, decode, encode

if TYPE_CHECKING:
    from vmkernel.storage.images.import_pipeline import ImageImporter

__all__ = ["LIFE_S", "ResumableUploads"]

_log = logging.getLogger(__name__)

LIFE_S = 24 * 3600.0
_GRACE_S = 3600.0
"""At least this long after a start: the clock may have been wrong before."""
_SWEEP_S = 60.0
_TAKE_OVER_S = 15.0
MAX_OPEN, OPEN_EACH = 256, 32
"""In total, and per token."""
MAX_WRITERS, WRITERS_EACH = 24, 8
"""Parts received at once, in total and per token; each has a thread."""
_KEEP_AFTER = {ErrorCode.INSUFFICIENT_SPACE, ErrorCode.UNAVAILABLE, ErrorCode.TIMED_OUT}

_ACTOR = "upload-resume"


@dataclass
class _Entry:
    record: UploadRecord
    folder: Path
    deadline_s: float
    """By the monotonic clock."""
    held: contextlib.ExitStack
    """The lock on the image's id, and reserved space."""
    actor: str = _ACTOR
    """Who began it or sent its last part to this vmkernel. The record isn't trusted for this: the
    datastore may come from elsewhere."""
    part: ChunkReceiver | None = None
    operation: Operation | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def data(self) -> Path:
        return self.folder / f"{self.id}.part"

    @property
    def description(self) -> Path:
        return self.folder / f"{self.id}.json"

    @property
    def whole(self) -> bool:
        return self.record.offset_bytes == self.record.spec.size_bytes


class ResumableUploads:
    """Owns the uploads of all datastores."""

    def __init__(
        self,
        datastores: Datastores,
        capacity: Capacity,
        catalogue: Catalogue,
        operations: OperationRegistry,
        importer: Callable[[], ImageImporter],
    ) -> None:
        self._datastores = datastores
        self._capacity = capacity
        self._catalogue = catalogue
        self._operations = operations
        self._importer = importer
        self._entries: dict[str, _Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(MAX_WRITERS, thread_name_prefix="part")
        self._open = Places("uploads are open", total=MAX_OPEN, each=OPEN_EACH)
        self._writing = Places("uploads are received", total=MAX_WRITERS, each=WRITERS_EACH)
        self._ending = False
        datastores.on_change(self._datastore_changed)

    # --- start, end, sweep --------------------------------------------------------------------

    async def sweep(self) -> None:
        """Remove expired uploads, once a minute; until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            await self.sweep_once()

    async def sweep_once(self) -> None:
        now_s = time.monotonic()
        for entry in list(self._entries.values()):
            if entry.deadline_s < now_s and entry.part is None and entry.operation is None:
                _log.info("upload %s of image %s has expired", entry.id, entry.record.spec.image)
                await self._forget(entry)

    async def stop(self) -> None:
        """Stop what is in progress; it can be resumed after the next start."""
        self._ending = True
        for entry in self._entries.values():
            if entry.part is not None:
                entry.part.cancel()
        await asyncio.gather(*self._tasks, *self._loading, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- requests -----------------------------------------------------------------------------

    async def list(self) -> tuple[Upload, ...]:
        await self._settled()
        entries = sorted(self._entries.values(), key=lambda entry: entry.id)
        return tuple(map(_describe, entries))

    async def get(self, upload_id: str) -> Upload:
        """One upload, with its durable offset."""
        return _describe(await self._entry(upload_id))

    async def create(self, spec: UploadSpec, *, actor: str) -> Upload:
        """Make an upload; names and space are checked, and it is durable, before this returns."""
        if spec.image in self._catalogue.images:
            raise MicaError(ErrorCode.ALREADY_EXISTS, f"There is an image {spec.image} already.")
        layout = self._datastores.layout_for(spec.datastore)
        await self._settled()
        self._open.check(actor)
        await self._capacity.measure(spec.datastore)
        self._refuse_taken(spec.image)
        now = clock.now()
        with contextlib.ExitStack() as undo:
            undo.callback(self._open.take(actor))
            release = self._capacity.reserve(
                spec.datastore, spec.size_bytes, pointer="/spec/size_bytes"
            )
            undo.callback(release)
            undo.enter_context(self._catalogue.locked("image", spec.image, "uploaded"))
            record = UploadRecord(
                id=secrets.token_hex(16), created_at=now, touched_at=now, actor=actor, spec=spec
            )
            entry = _Entry(record, layout.uploads, time.monotonic() + LIFE_S, undo, actor)
            async with self._datastores.using(spec.datastore):
                try:
                    allocated = await asyncio.to_thread(_make, entry)
                except OSError as error:
                    raise from_os_error(error, "The upload can't be stored") from error
            if allocated:
                release()
            entry.idle.set()
            entry.held = undo.pop_all()
        self._entries[entry.id] = entry
        return _describe(entry)

    async def delete(self, upload_id: str) -> None:
        """Give an upload up; durable on return."""
        entry = await self._entry(upload_id)
        if entry.operation is not None:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"The image is being made; cancel operation {entry.operation.id} instead.",
            )
        await self._take_over(entry)
        await self._forget(entry)

    async def write(
        self,
        upload_id: str,
        offset: int,
        *,
        length: int | None,
        checksum: UploadChecksum | None,
        actor: str,
    ) -> tuple[Upload, socket.socket]:
        """Begin to receive a part at `offset`; returns the upload, and the other end of the stream.

        The sender shuts the stream down for writing, then reads an UploadOutcome as JSON from it.
        `conflict` if the upload is not at this offset.
        """
        entry = await self._entry(upload_id)
        if entry.operation is not None:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"All bytes have arrived; operation {entry.operation.id} continues.",
            )
        await self._take_over(entry)
        if entry.id not in self._entries:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no upload {upload_id}.")
        at = entry.record.offset_bytes
        if offset != at:
            raise MicaError.field(
                "Upload-Offset",
                f"The upload is at {at}, not {offset}; ask for its offset and continue there.",
                ErrorCode.CONFLICT,
            )
        size = entry.record.spec.size_bytes
        if length is not None and offset + length > size:
            raise MicaError.field(
                "Content-Length", f"The part ends after the declared {size} bytes."
            )
        release = self._writing.take(actor)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        entry.part = ChunkReceiver(
            ours,
            entry.data,
            start=offset,
            size_bytes=size,
            length=length,
            checksum=checksum,
            remember=lambda reached: _remember(entry, reached),
        )
        entry.actor = actor
        entry.idle.clear()
        task = asyncio.create_task(self._receive(entry, entry.part, ours, release))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _describe(entry), theirs

    # --- receiving, importing -----------------------------------------------------------------

    async def _receive(
        self,
        entry: _Entry,
        part: ChunkReceiver,
        stream: socket.socket,
        release: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            outcome = await self._run_part(entry, loop, part)
            entry.deadline_s = time.monotonic() + LIFE_S
            if entry.whole and outcome.problem is None and not self._ending:
                try:
                    operation = self._begin_import(entry)
                    outcome = msgspec.structs.replace(outcome, operation=operation.id)
                except MicaError as error:  # too many run; an empty part tries again
                    outcome = msgspec.structs.replace(outcome, problem=error.problem)
            await asyncio.to_thread(_answer, stream, outcome)
        except Exception:
            _log.exception("upload %s failed by a defect", entry.id)
        finally:
            stream.close()
            entry.part = None
            release()
            entry.idle.set()

    async def _run_part(
        self, entry: _Entry, loop: asyncio.AbstractEventLoop, part: ChunkReceiver
    ) -> UploadOutcome:
        try:
            async with self._datastores.using(entry.record.spec.datastore):
                return await loop.run_in_executor(self._threads, part.run)
        except MicaError as error:
            problem = error.problem
        except OSError as error:
            problem = from_os_error(error, "The upload can't be stored").problem
        return UploadOutcome(offset_bytes=entry.record.offset_bytes, problem=problem)

    def _begin_import(self, entry: _Entry) -> Operation:
        spec = entry.record.spec

        async def work(context: OperationContext) -> None:
            try:
                async with self._datastores.using(spec.datastore):
                    await self._importer().make(
                        context, spec.image, spec, entry.data, keep_staged=True
                    )
            except MicaError as error:
                entry.operation = None
                if error.problem.code not in _KEEP_AFTER:
                    await self._forget(entry)
                raise
            except asyncio.CancelledError:
                entry.operation = None
                if not self._ending and not self._operations.closing:
                    await asyncio.shield(self._forget(entry))
                raise
            except BaseException:
                entry.operation = None
                raise
            entry.operation = None
            await self._forget(entry)

        entry.operation = self._operations.begin(
            "image.upload",
            Subject(kind="image", id=spec.image),
            work,
            actor=entry.actor,
            cancellable=True,
        )
        return entry.operation

    async def _take_over(self, entry: _Entry) -> None:
        """Stop a part in transfer, and wait until what it received is settled."""
        if entry.part is None:
            return
        entry.part.cancel()
        try:
            async with asyncio.timeout(_TAKE_OVER_S):
                await entry.idle.wait()
        except TimeoutError as error:
            raise MicaError(
                ErrorCode.UNAVAILABLE,
                "The part before is still being stored; try again in a moment.",
                retry_after_s=2,
            ) from error

    async def _forget(self, entry: _Entry) -> None:
        self._entries.pop(entry.id, None)
        entry.held.close()
        try:
            await asyncio.to_thread(_remove, entry)
        except OSError as error:
            _log.warning("upload %s can't be removed: %s", entry.id, error)

    # --- coming and going of datastores -------------------------------------------------------

    def _datastore_changed(self, datastore: str, available: bool) -> None:
        if available:
            task = asyncio.create_task(self._load(datastore))
            self._loading.add(task)
            task.add_done_callback(self._loading.discard)
            return
        for entry in list(self._entries.values()):
            if entry.record.spec.datastore == datastore:
                if entry.part is not None:
                    entry.part.cancel()
                del self._entries[entry.id]
                entry.held.close()

    async def _load(self, datastore: str) -> None:
        try:
            layout = self._datastores.layout(datastore)
            found = await asyncio.to_thread(_read_all, layout.uploads)
        except (MicaError, OSError) as error:
            _log.warning("the uploads of %s can't be read: %s", datastore, error)
            return
        for record in found:
            spec = record.spec
            entry = _Entry(record, layout.uploads, _deadline(record), contextlib.ExitStack())
            try:
                if spec.image in self._catalogue.images or spec.datastore != datastore:
                    raise StorageError(ErrorCode.ALREADY_EXISTS, "its image is there")
                lock = self._catalogue.locked("image", spec.image, "uploaded")
                entry.held.enter_context(lock)
                entry.held.callback(self._open.count(entry.actor))
            except MicaError as error:
                _log.info("upload %s is dropped: %s", record.id, error)
                await self._forget(entry)
                continue
            with contextlib.suppress(MicaError):  # where the blocks were not to be had before
                missing = spec.size_bytes - await asyncio.to_thread(_allocated, entry.data)
                if missing > 0:
                    await self._capacity.measure(datastore)
                    entry.held.callback(
                        self._capacity.reserve(datastore, missing, pointer="/spec/size_bytes")
                    )
            entry.idle.set()
            self._entries[record.id] = entry
            if entry.whole and not self._ending:
                self._begin_import(entry)

    async def _settled(self) -> None:
        """Wait until the uploads of new datastores are known."""
        if self._loading:
            await asyncio.wait(self._loading, timeout=_TAKE_OVER_S)

    async def _entry(self, upload_id: str) -> _Entry:
        await self._settled()
        if (entry := self._entries.get(upload_id)) is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no upload {upload_id}.")
        return entry

    def _refuse_taken(self, image: str) -> None:
        for entry in self._entries.values():
            if entry.record.spec.image == image:
                raise StorageError(
                    ErrorCode.CONFLICT,
                    f"Upload {entry.id} is of image {image} already; resume or delete it.",
                )


def _describe(entry: _Entry) -> Upload:
    record = entry.record
    left_s = max(0.0, entry.deadline_s - time.monotonic())
    return Upload(
        id=record.id,
        created_at=record.created_at,
        spec=record.spec,
        status=UploadStatus(
            state=UploadState.RECEIVING if entry.operation is None else UploadState.IMPORTING,
            offset_bytes=record.offset_bytes,
            expires_at=clock.format_time(time.time() + left_s),
            operation=None if entry.operation is None else entry.operation.id,
        ),
    )


def _make(entry: _Entry) -> bool:
    """The file with its blocks, then the record; False if blocks can't be reserved."""
    try:
        fd = create_file(entry.data)
        try:
            allocated = allocate(fd, entry.record.spec.size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)
        write_durably(entry.description, encode(entry.record))
    except BaseException:
        with contextlib.suppress(OSError):
            remove(entry.data)
        raise
    return allocated


def _remember(entry: _Entry, offset: int) -> None:
    record = msgspec.structs.replace(entry.record, offset_bytes=offset, touched_at=clock.now())
    write_durably(entry.description, encode(record))
    entry.record = record


def _remove(entry: _Entry) -> None:
    unlink_durably(entry.description)
    unlink_durably(entry.data)


def _read_all(folder: Path) -> list[UploadRecord]:
    """The records whose data exist; files without a record are removed (blocking)."""
    found: list[UploadRecord] = []
    there = names(folder)
    for name in there:
        if not name.endswith(".json"):
            continue
        try:
            record = decode(UploadRecord, read_limited(folder / name, RECORD_LIMIT))
            if record.id == name.removesuffix(".json"):
                _prove_part(folder / f"{record.id}.part", record)
                found.append(record)
        except (RecordError, OSError) as error:
            _log.warning("upload %r can't be read: %s", name[:80], error)
    known = {f"{record.id}.{suffix}" for record in found for suffix in ("json", "part")}
    for name in there:
        if name not in known:
            _log.info("sweeping %r", name[:80])
            with contextlib.suppress(OSError):
                remove_tree(folder / name)
    fsync_directory(folder)
    return found


def _prove_part(path: Path, record: UploadRecord) -> None:
    """The datastore may come from anywhere: OSError or RecordError if the data don't match the
    record.
    """
    fd = open_regular(path, os.O_RDONLY, limit=record.spec.size_bytes, single=True)
    try:
        if os.fstat(fd).st_size < record.offset_bytes:
            raise RecordError("its data are shorter than it says")
    finally:
        os.close(fd)


def _allocated(path: Path) -> int:
    return allocated_bytes(path)


def _deadline(record: UploadRecord) -> float:
    """When an upload of an earlier run expires, by the monotonic clock."""
    try:
        age_s = time.time() - datetime.fromisoformat(record.touched_at).timestamp()
    except ValueError:
        age_s = 0.0
    return time.monotonic() + min(LIFE_S, max(_GRACE_S, LIFE_S - age_s))


def _answer(stream: socket.socket, outcome: UploadOutcome) -> None:
    with contextlib.suppress(OSError):
        stream.sendall(msgspec.json.encode(outcome))
        stream.shutdown(socket.SHUT_WR)
