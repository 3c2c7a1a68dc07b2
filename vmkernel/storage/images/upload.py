"""Receiving a file from a stream, in its own thread: length and digest are verified.

The sender writes exactly the declared number of bytes and shuts its side down for writing. The
thread reads, hashes and writes in turn, so that memory stays bounded and the sender is slowed by
the stream's buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vmkernel.host.errors import from_os_error
from vmkernel.host.files import allocate, create_file, remove
from vmkernel.model import ErrorCode, ImageSource, MicaError
from vmkernel.storage.formats.base import HEAD_BYTES

__all__ = ["MAX_UPLOADS", "UPLOADS_EACH", "Uploader"]

MAX_UPLOADS, UPLOADS_EACH = 24, 8
"""In total, and per token; each has a thread and a buffer of _CHUNK_BYTES."""
_CHUNK_BYTES = 1 << 18
_SILENCE_S = 60.0
_REPORT_S = 0.2

Progress = Callable[[int], None]


class Uploader:
    """Owns the receiving threads; `receive` is cancelled by shutting the stream down."""

    def __init__(self, *, silence_s: float = _SILENCE_S) -> None:
        self._silence_s = silence_s
        self._threads = ThreadPoolExecutor(MAX_UPLOADS, thread_name_prefix="upload")

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def receive(
        self,
        stream: socket.socket,
        target: Path,
        source: ImageSource,
        *,
        on_allocated: Callable[[], None],
        on_progress: Progress,
    ) -> str:
        """Receive into the new file `target`; returns the digest.

        The file is durable on return; on any failure it is removed. `stream` is closed either way.
        """
        loop = asyncio.get_running_loop()

        def later(function: Callable[[int], None]) -> Progress:
            return lambda done: void(loop.call_soon_threadsafe(function, done))

        def void(_: object) -> None:
            """call_soon_threadsafe's handle isn't needed."""

        job = _Receiving(
            stream,
            target,
            source,
            self._silence_s,
            lambda: void(loop.call_soon_threadsafe(on_allocated)),
            later(on_progress),
        )
        work = loop.run_in_executor(self._threads, job.run)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            job.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        finally:
            stream.close()


class _Receiving:
    def __init__(
        self,
        stream: socket.socket,
        target: Path,
        source: ImageSource,
        silence_s: float,
        on_allocated: Callable[[], None],
        on_progress: Progress,
    ) -> None:
        self._stream = stream
        self._target = target
        self._source = source
        self._silence_s = silence_s
        self._on_allocated = on_allocated
        self._on_progress = on_progress
        self._cancelled = False

    def cancel(self) -> None:
        """Wake the thread; it ends at its next read."""
        self._cancelled = True
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)

    def run(self) -> str:
        try:
            fd = create_file(self._target, flags=os.O_RDWR)
            try:
                digest = self._receive(fd)
                os.fsync(fd)
                return digest
            finally:
                os.close(fd)
        except BaseException as error:
            # The sender must not wait for a reader that has gone.
            with contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                remove(self._target)
            if isinstance(error, OSError):
                raise from_os_error(error, "The image can't be stored") from error
            raise

    def _receive(self, fd: int) -> str:
        from vmkernel.storage.images.import_pipeline import refuse_early

        source = self._source
        allocate(fd, source.size_bytes)
        self._on_allocated()
        self._stream.setblocking(True)
        self._stream.settimeout(self._silence_s)
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        head = b""
        judged = False
        done = 0
        reported_s = 0.0
        while True:
            count = self._read(buffer)
            if not count:
                break
            done += count
            if done > source.size_bytes:
                raise MicaError.field(
                    "/spec/size_bytes", f"More than the declared {source.size_bytes} bytes came."
                )
            part = buffer[:count]
            digest.update(part)
            _write_all(fd, part)
            if not judged:
                head += bytes(part[: HEAD_BYTES - len(head)])
                if len(head) == min(HEAD_BYTES, source.size_bytes):
                    refuse_early(source, head)
                    judged = True
            if time.monotonic() - reported_s >= _REPORT_S:
                reported_s = time.monotonic()
                self._on_progress(done)
        self._on_progress(done)
        if done < source.size_bytes:
            raise MicaError(
                ErrorCode.TRUNCATED,
                f"The upload ended after {done} of {source.size_bytes} bytes.",
            )
        if source.sha256 not in (None, digest.hexdigest()):
            raise MicaError.field(
                "/spec/sha256",
                f"The data have the SHA-256 {digest.hexdigest()}, not the declared one.",
                ErrorCode.DIGEST_MISMATCH,
            )
        return digest.hexdigest()

    def _read(self, buffer: memoryview) -> int:
        try:
            count = self._stream.recv_into(buffer)
        except TimeoutError as error:
            raise MicaError(
                ErrorCode.TIMED_OUT, f"No data arrived for {self._silence_s:g} s; upload again."
            ) from error
        except OSError as error:
            raise MicaError(
                ErrorCode.TRUNCATED, f"The upload broke off ({error.strerror})."
            ) from error
        if self._cancelled:
            raise MicaError(ErrorCode.CONFLICT, "The upload was cancelled.")
        return count


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
