"""The last bytes that a program which outlives us wrote to stdout and stderr.

    program --(named pipe, 64 KiB)--> its tail (here) --(once a second)--> a small file

The program holds the pipe open for reading, too, so it never sees the other end closed and writes
on while we are gone; what no longer fits into the pipe is refused to it (EAGAIN). It can't make
anything grow: the pipe has its size, and a reader that finds it full again and again looks less
often.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path

from vmkernel.host.files import write_lightly

__all__ = ["OutputPipe", "TAIL_BYTES"]

TAIL_BYTES = 4096
_CHUNK_BYTES = 1 << 16
"""A pipe's size, pipe(7)."""
_PAUSE_S = 0.25
_SAVE_S = 1.0


class OutputPipe:
    """The pipe at a path, and the tail kept beside it for a later process of ours."""

    def __init__(self, path: Path, fd: int, tail: bytes) -> None:
        self._path = path
        self._fd = fd
        self._tail = tail
        self._loop = asyncio.get_running_loop()
        self._resuming: asyncio.TimerHandle | None = None
        self._saving: asyncio.TimerHandle | None = None
        self._loop.add_reader(fd, self._readable)

    @classmethod
    def make(cls, path: Path) -> OutputPipe:
        """A new, empty one, replacing anything that is there."""
        for name in (path, _kept(path)):
            name.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        return cls(path, _open(path, os.O_RDONLY), b"")

    @classmethod
    def find(cls, path: Path) -> OutputPipe | None:
        """The one that an earlier process of ours made; None if there is none."""
        try:
            fd = _open(path, os.O_RDONLY)
        except OSError:
            return None
        tail = b""
        with contextlib.suppress(OSError):
            tail = _kept(path).read_bytes()[-TAIL_BYTES:]
        return cls(path, fd, tail)

    def writer(self) -> int:
        """A descriptor for the program; the caller closes it."""
        return _open(self._path, os.O_RDWR)

    def tail(self) -> bytes:
        """The last bytes written until now."""
        self._take()
        return self._tail

    def close(self) -> None:
        """Close it; the tail is kept."""
        if self._fd < 0:
            return
        self._take()
        self._loop.remove_reader(self._fd)
        for timer in (self._resuming, self._saving):
            if timer is not None:
                timer.cancel()
        self._save()
        os.close(self._fd)
        self._fd = -1

    def _readable(self) -> None:
        self._loop.remove_reader(self._fd)
        self._take()
        self._resuming = self._loop.call_later(_PAUSE_S, self._resume)
        if self._saving is None:
            self._saving = self._loop.call_later(_SAVE_S, self._save)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._fd, self._readable)

    def _take(self) -> None:
        """What the pipe holds now, and no more: a program that keeps writing must
        not keep us here.
        """
        if self._fd < 0:
            return
        with contextlib.suppress(BlockingIOError):
            self._tail = (self._tail + os.read(self._fd, _CHUNK_BYTES))[-TAIL_BYTES:]

    def _save(self) -> None:
        self._saving = None
        with contextlib.suppress(OSError):
            write_lightly(_kept(self._path), self._tail)


def _kept(path: Path) -> Path:
    return path.with_name(f"{path.name}.last")


def _open(path: Path, flags: int) -> int:
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is not a pipe")
    return fd
