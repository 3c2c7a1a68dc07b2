"""Writing into a raw volume from a stream, as a restore does; in its own thread.

The sender writes exactly the declared number of bytes and shuts its side down for writing. The
answer on the stream is empty if everything is durable, or an ErrorInfo as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import msgspec

from vmkernel.host.errors import from_os_error, naming_datastore
from vmkernel.host.files import open_regular
from vmkernel.model import ErrorCode, MicaError
from vmkernel.operations.places import Places
from vmkernel.storage.catalogue import Catalogue, VolumeEntry
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.errors import StorageError
from vmkernel.storage.patience import patient
from vmkernel.storage.volumes.service import Volumes

__all__ = ["VolumeData"]

_CHUNK_BYTES = 1 << 20
_SILENCE_S = 60.0
WRITERS, WRITERS_EACH = 8, 4
"""In total, and per token; each has a thread."""


class VolumeData:
    def __init__(self, volumes: Volumes, datastores: Datastores, catalogue: Catalogue) -> None:
        self._volumes = volumes
        self._datastores = datastores
        self._catalogue = catalogue
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = Places("volumes are being written", total=WRITERS, each=WRITERS_EACH)
        # Threads of their own: a slow sender must not hold up what others do with files.
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="volume-data")

    @patient
    async def write(self, volume_id: str, offset: int, length: int, *, actor: str) -> socket.socket:
        """The stream for `length` bytes at `offset`."""
        entry, _ = self._volumes.checks.at_rest(volume_id)
        self._catalogue.refuse_children(volume_id)
        if entry.format.value != "raw":
            raise StorageError(
                ErrorCode.CONFLICT,
                f"Volume {volume_id} is {entry.format}: only raw volumes accept data; convert "
                "it to raw first, and back afterwards.",
            )
        if offset + length > entry.size_bytes:
            raise StorageError(
                ErrorCode.CONFLICT, f"Volume {volume_id} has {entry.size_bytes} bytes only."
            )
        async with contextlib.AsyncExitStack() as undo:
            await undo.enter_async_context(self._datastores.using(entry.datastore))
            undo.enter_context(self._catalogue.locked("volume", volume_id, "written"))
            undo.callback(self._places.take(actor))
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            held = undo.pop_all()
        task = asyncio.create_task(
            self._run(ours, entry, offset, length, held), name=f"write-{volume_id}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return theirs

    async def _run(
        self,
        stream: socket.socket,
        entry: VolumeEntry,
        offset: int,
        length: int,
        held: contextlib.AsyncExitStack,
    ) -> None:
        """The volume is unlocked before the sender gets its answer."""
        try:
            async with held:
                loop = asyncio.get_running_loop()
                verdict = await loop.run_in_executor(
                    self._threads, _receive, stream, entry, offset, length
                )
            await loop.run_in_executor(self._threads, _answer, stream, verdict)
        finally:
            stream.close()


def _receive(stream: socket.socket, entry: VolumeEntry, offset: int, length: int) -> bytes:
    try:
        stream.setblocking(True)
        stream.settimeout(_SILENCE_S)
        with naming_datastore(entry.datastore):
            fd = open_regular(entry.place.data, os.O_WRONLY, single=True)
            try:
                _pour(stream, fd, offset, length)
                os.fsync(fd)
            finally:
                os.close(fd)
    except MicaError as error:
        return msgspec.json.encode(error.problem)
    except OSError as error:
        return msgspec.json.encode(from_os_error(error, "The data can't be written").problem)
    return b""


def _pour(stream: socket.socket, fd: int, offset: int, length: int) -> None:
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    left = length
    while True:
        count = stream.recv_into(buffer)
        if not count:
            break
        if count > left:
            raise MicaError(ErrorCode.INVALID, f"More than the declared {length} bytes came.")
        part = buffer[:count]
        while part:
            written = os.pwrite(fd, part, offset)
            offset += written
            part = part[written:]
        left -= count
    if left:
        raise MicaError(ErrorCode.TRUNCATED, f"{left} of {length} bytes are missing.")


def _answer(stream: socket.socket, verdict: bytes) -> None:
    with contextlib.suppress(OSError):
        stream.sendall(verdict)
        stream.shutdown(socket.SHUT_WR)
