"""Sends a part of a file into a stream, in a thread, at the reader's pace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vmkernel.host.errors import from_os_error
from vmkernel.host.files import open_regular
from vmkernel.operations.places import Places

__all__ = [
    "Downloader",
    "MAX_READERS",
    "READERS_EACH",
]

MAX_READERS, READERS_EACH = 32, 8
"""In total, and per token; each has a thread."""
_SILENCE_S = 120.0


class Downloader:
    """Owns the threads; the caller's context keeps the file locked until sending ends."""

    def __init__(self, *, silence_s: float = _SILENCE_S) -> None:
        self._silence_s = silence_s
        self._threads = ThreadPoolExecutor(MAX_READERS, thread_name_prefix="send")
        self._places = Places("downloads are under way", total=MAX_READERS, each=READERS_EACH)
        self._sending: dict[asyncio.Task[None], socket.socket] = {}

    async def send(
        self,
        path: Path,
        offset: int,
        length: int,
        held: contextlib.AsyncExitStack,
        *,
        actor: str,
    ) -> socket.socket:
        """Begin to send; returns the other end of the stream. `held` is closed at the end, or here
        on failure.

        The stream ends early if the file does, or if it isn't read for long.
        """
        try:
            held.callback(self._places.take(actor))
            try:
                fd = await asyncio.to_thread(open_regular, path, os.O_RDONLY)
            except OSError as error:
                raise from_os_error(error, f"{path.name} can't be read") from error
        except BaseException:
            await held.aclose()
            raise
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        task = asyncio.create_task(self._run(fd, ours, offset, length, held))
        self._sending[task] = ours
        task.add_done_callback(lambda done: self._sending.pop(done, None))
        return theirs

    async def stop(self) -> None:
        """Stop all transfers."""
        for stream in self._sending.values():
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(
        self,
        fd: int,
        stream: socket.socket,
        offset: int,
        length: int,
        held: contextlib.AsyncExitStack,
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, self._send, fd, stream, offset, length)
        finally:
            stream.close()
            await held.aclose()

    def _send(self, fd: int, stream: socket.socket, offset: int, length: int) -> None:
        stream.settimeout(self._silence_s)
        with os.fdopen(fd, "rb", buffering=0) as file, contextlib.suppress(OSError):
            if length:
                stream.sendfile(file, offset, length)
            stream.shutdown(socket.SHUT_WR)
