"""One part of a resumable upload: from a stream into its file, in a thread.

The record counts, and it is written only after the data are durable. Of an interrupted part, what
arrived is kept; one with a checksum is kept as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

from vmkernel.host.files import open_regular
from vmkernel.model import MicaError, UploadChecksum, UploadOutcome

__all__ = ["ChunkReceiver"]

_CHUNK_BYTES = 1 << 20
_CHECKPOINT_BYTES = 64 << 20
_SILENCE_S = 60.0


class ChunkReceiver:
    """`run` blocks; `cancel` ends it from another thread, keeping what arrived."""

    def __init__(
        self,
        stream: socket.socket,
        path: Path,
        *,
        start: int,
        size_bytes: int,
        length: int | None,
        checksum: UploadChecksum | None,
        remember: Callable[[int], None],
        checkpoint_bytes: int = _CHECKPOINT_BYTES,
        silence_s: float = _SILENCE_S,
    ) -> None:
        """`remember(offset)` records durably that the data up to there are durable; it blocks."""
        self._stream = stream
        self._path = path
        self._start = start
        self._size = size_bytes
        self._length = length
        self._checksum = checksum
        self._remember = remember
        self._checkpoint_bytes = checkpoint_bytes
        self._silence_s = silence_s

    def cancel(self) -> None:
        """Wake the thread; it settles what arrived and ends."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)

    def run(self) -> UploadOutcome:
        """Receive to the end of the stream; MicaError if more arrives than allowed, OSError of the
        disk.
        """
        fd = open_regular(self._path, os.O_WRONLY, limit=self._size, single=True)
        try:
            return self._receive(fd)
        finally:
            os.close(fd)

    def _receive(self, fd: int) -> UploadOutcome:
        self._stream.setblocking(True)
        self._stream.settimeout(self._silence_s)
        digest = hashlib.new(self._checksum.algorithm) if self._checksum is not None else None
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        offset = durable = self._start
        while count := self._read(buffer):
            if offset + count > self._size:
                raise MicaError.field(
                    "/spec/size_bytes", f"More than the declared {self._size} bytes came."
                )
            part = buffer[:count]
            if digest is not None:
                digest.update(part)
            while part:
                written = os.pwrite(fd, part, offset)
                offset += written
                part = part[written:]
            if digest is None and offset - durable >= self._checkpoint_bytes:
                durable = self._settle(fd, offset)
        matches = True
        if digest is not None and self._checksum is not None:
            whole = self._length is None or offset - self._start == self._length
            matches = not whole or digest.digest() == self._checksum.digest
            if not whole or not matches:
                offset = self._start
        if offset > durable:
            self._settle(fd, offset)
        return UploadOutcome(offset_bytes=offset, checksum_matches=matches)

    def _settle(self, fd: int, offset: int) -> int:
        if offset == self._size:
            os.ftruncate(fd, self._size)
        os.fdatasync(fd)
        self._remember(offset)
        return offset

    def _read(self, buffer: memoryview) -> int:
        """The next bytes; 0 at the end, whether intended or not."""
        try:
            return self._stream.recv_into(buffer)
        except OSError:
            return 0
