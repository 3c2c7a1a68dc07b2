"""Where a file's data are, and how much of it other files share (lseek(2); FIEMAP of
linux/fiemap.h)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from vmkernel.host.files import open_regular

__all__ = ["data_extents", "shared_bytes"]

_FS_IOC_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=QQIIII")
"""fm_start, fm_length, fm_flags, fm_mapped_extents, fm_extent_count, reserved."""
_EXTENT = struct.Struct("=QQQ16xI12x")
"""fe_logical, fe_physical, fe_length, reserved, fe_flags, reserved."""
_LAST = 0x1
_SHARED = 0x2000
_AT_ONCE = 1024
_ROUNDS = 64
_ALL = (1 << 64) - 1
_PIECES_MAX = 65536
"""Looked at in one call: a few tenths of a second."""


def shared_bytes(path: Path) -> int | None:
    """How many bytes of a file are shared with other files (blocking); None if the file system
    doesn't report it, or the file is in more than 65,536 pieces.
    """
    try:
        fd = open_regular(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return _sum(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def data_extents(
    path: Path, start: int, *, most: int, gap_bytes: int
) -> tuple[list[tuple[int, int]], int | None]:
    """Offset and length of the pieces of a file that hold data, from `start` on (blocking); and
    where to continue, None at the end. Holes smaller than `gap_bytes` count as data. OSError.
    """
    found: list[tuple[int, int]] = []
    fd = open_regular(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        place = start
        for _ in range(_PIECES_MAX):
            if place >= size:
                return found, None
            try:
                begin = os.lseek(fd, place, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return found, None
                raise
            end = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
            if found and begin - sum(found[-1]) < gap_bytes:
                found[-1] = (found[-1][0], end - found[-1][0])
            elif len(found) == most:
                return found, begin
            else:
                found.append((begin, end - begin))
            place = end
        return found, place
    finally:
        os.close(fd)


def _sum(fd: int) -> int | None:
    found = 0
    start = 0
    for _ in range(_ROUNDS):
        buffer = bytearray(_HEAD.size + _AT_ONCE * _EXTENT.size)
        _HEAD.pack_into(buffer, 0, start, _ALL - start, 0, 0, _AT_ONCE, 0)
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, buffer)
        count = _HEAD.unpack_from(buffer)[3]
        for number in range(count):
            logical, _, length, flags = _EXTENT.unpack_from(
                buffer, _HEAD.size + number * _EXTENT.size
            )
            found += length if flags & _SHARED else 0
            start = logical + length
            if flags & _LAST:
                return found
        if not count:
            return found
    return None
