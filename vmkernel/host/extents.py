"""Where a file's data lie: how much of it other files share (FIEMAP of linux/fiemap.h)."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from vmkernel.host.files import open_regular

__all__ = ["shared_bytes"]

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


def shared_bytes(path: Path) -> int | None:
    """How many bytes of a file's data are other files' as well (blocking); None where the file
    system doesn't tell, or the file is in more than 65,536 pieces."""
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
