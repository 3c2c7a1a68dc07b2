"""The medium of the state log: a raw partition of the stick, or a file in hosted mode."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from pathlib import Path

from vmkernel.host.files import fsync_directory
from vmkernel.host.flush import ensure_flushes

__all__ = ["FileMedium", "PartitionMedium", "SLOT_BYTES"]

SLOT_BYTES = 1 << 20
_FILE_SLOTS = 8
_MAX_SLOTS = 64
_ALIGNMENT = 4096


class PartitionMedium:
    """A raw partition, bypassing the page cache: O_DIRECT and O_DSYNC with an aligned buffer.

    The descriptor stays open as long as the medium exists, so that another stick that later gets
    the same name is never written.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(
            path, os.O_RDWR | os.O_DIRECT | os.O_DSYNC | os.O_CLOEXEC | os.O_NOFOLLOW
        )
        size = os.lseek(self._fd, 0, os.SEEK_END)
        self._slots = min(_MAX_SLOTS, size // SLOT_BYTES)
        if self._slots < 2:
            os.close(self._fd)
            raise OSError(errno.ENOSPC, f"smaller than {2 * SLOT_BYTES} bytes", str(path))
        self._buffer = mmap.mmap(-1, SLOT_BYTES)
        if stat.S_ISBLK(os.fstat(self._fd).st_mode):
            ensure_flushes(self._fd)

    @property
    def slot_bytes(self) -> int:
        """The size of one slot."""
        return SLOT_BYTES

    @property
    def slot_count(self) -> int:
        """How many slots the partition holds."""
        return self._slots

    def read(self, slot: int, length: int) -> bytes:
        """The first bytes of a slot."""
        wanted = _aligned(length)
        with memoryview(self._buffer)[:wanted] as window:
            done = 0
            while done < wanted:
                with window[done:] as rest:
                    count = os.preadv(self._fd, [rest], slot * SLOT_BYTES + done)
                if count <= 0:
                    raise OSError(errno.EIO, "short read")
                done += count
            return bytes(window[:length])

    def write(self, slot: int, data: bytes) -> None:
        """Write the beginning of a slot, padded with zeros; durable on return."""
        wanted = _aligned(len(data))
        self._buffer[: len(data)] = data
        self._buffer[len(data) : wanted] = bytes(wanted - len(data))
        with memoryview(self._buffer)[:wanted] as window:
            done = 0
            while done < wanted:
                with window[done:] as rest:
                    count = os.pwritev(self._fd, [rest], slot * SLOT_BYTES + done)
                if count <= 0:
                    raise OSError(errno.EIO, "short write")
                done += count

    def close(self) -> None:
        self._buffer.close()
        os.close(self._fd)


class FileMedium:
    """An ordinary file, for hosted mode; locked, so that two vmkernels can't share it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_DSYNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._fd).st_size < _FILE_SLOTS * SLOT_BYTES:
                os.ftruncate(self._fd, _FILE_SLOTS * SLOT_BYTES)
                os.fsync(self._fd)
                fsync_directory(path.parent)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def slot_bytes(self) -> int:
        """The size of one slot."""
        return SLOT_BYTES

    @property
    def slot_count(self) -> int:
        """How many slots the file holds."""
        return _FILE_SLOTS

    def read(self, slot: int, length: int) -> bytes:
        """The first bytes of a slot."""
        return os.pread(self._fd, length, slot * SLOT_BYTES)

    def write(self, slot: int, data: bytes) -> None:
        """Write the beginning of a slot; durable on return."""
        view = memoryview(data)
        offset = slot * SLOT_BYTES
        while view:
            count = os.pwrite(self._fd, view, offset)
            view, offset = view[count:], offset + count

    def close(self) -> None:
        os.close(self._fd)


def _aligned(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT
