"""Work on whole files in threads: digests, and taking files over; each can be cancelled."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vmkernel.host.files import create_file, fsync_directory, link, move, open_regular

__all__ = [
    "adopt",
    "create_staged",
    "file_sha256",
    "in_thread",
    "settle_file",
]

T = TypeVar("T")
_CHUNK_BYTES = 1 << 20
_MODE = 0o644
OnDone = Callable[[int], None]


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run blocking work that checks an event now and then, which is set if we are cancelled.

    Returns or raises only once the thread has ended.
    """
    stop = threading.Event()
    thread = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.gather(thread, return_exceptions=True)
        raise


async def file_sha256(path: Path, on_done: OnDone) -> str:
    """The digest of a file; `on_done` is called with the progress."""
    loop = asyncio.get_running_loop()

    def work(stop: threading.Event) -> str:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        done = 0
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
                done += count
                if stop.is_set():
                    break
                if done % (16 * _CHUNK_BYTES) < count:
                    loop.call_soon_threadsafe(on_done, done)
        return digest.hexdigest()

    return await in_thread(work)


def create_staged(path: Path) -> int:
    """A new empty file; returns its descriptor, which the caller closes."""
    return create_file(path, flags=os.O_RDWR)


def adopt(source: Path, target: Path, *, keep: bool) -> None:
    """Rename a file; with `keep` it has both names, so that a crash loses neither.

    If the file system has no hard links, it is moved.
    """
    if keep:
        try:
            link(source, target)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
        else:
            return
    move(source, target)


def settle_file(path: Path) -> None:
    """Make a file ours, readable and durable."""
    fd = open_regular(path, os.O_RDONLY)
    try:
        if os.fstat(fd).st_uid != os.getuid():
            os.fchown(fd, os.getuid(), os.getgid())
        os.fchmod(fd, _MODE)
        os.fsync(fd)
    finally:
        os.close(fd)
    fsync_directory(path.parent)
