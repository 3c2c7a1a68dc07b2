"""Grow disks, partitions and mounted file systems in the kernel, by ioctls.

Each is one call (`xfs_growfs` and `resize2fs` make the same ones for a mounted file system), so
that no program is needed.

BLKPG_RESIZE_PARTITION linux/blkpg.h XFS_IOC_FSGEOMETRY, XFS_IOC_FSGROWFSDATA xfs/xfs_fs.h
EXT4_IOC_RESIZE_FS linux/ext4.h
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = ["device_bytes", "grow_filesystem", "rescan_disk", "resize_partition"]

_BLKPG = 0x1269
_BLKPG_RESIZE_PARTITION = 3
_BLKPG_PARTITION = struct.Struct("<qqi64s64s4x")
_BLKPG_ARGUMENT = struct.Struct("<iii4xQ")
_BLKGETSIZE64 = 0x80081272
_XFS_GEOMETRY_V1 = 0x80705864
"""_IOR('X', 100, struct xfs_fsop_geom_v1)"""
_XFS_GEOMETRY_BYTES = 112
_XFS_GROW_DATA = 0x4010586E
"""_IOW('X', 110, struct xfs_growfs_data)"""
_EXT4_RESIZE = 0x40086610
"""_IOW('f', 16, __u64)"""
_DATA_BLOCKS = struct.Struct("<Q")
_DATA_BLOCKS_AT = 32
"""`datablocks` follows eight 32-bit fields."""


def device_bytes(device: Path) -> int:
    """The size of a block device. OSError."""
    with _opened(device) as fd:
        raw = fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8))
    return int.from_bytes(raw, "little")


def resize_partition(disk: Path, number: int, start_bytes: int, size_bytes: int) -> None:
    """Give the kernel's partition the length from the table; it may be in use. OSError."""
    part = ctypes.create_string_buffer(
        _BLKPG_PARTITION.pack(start_bytes, size_bytes, number, b"", b"")
    )
    argument = _BLKPG_ARGUMENT.pack(
        _BLKPG_RESIZE_PARTITION, 0, _BLKPG_PARTITION.size, ctypes.addressof(part)
    )
    with _opened(disk) as fd:
        fcntl.ioctl(fd, _BLKPG, argument)


def rescan_disk(name: str, sys: Path = Path("/sys")) -> None:
    """Have a disk's size read again, for kinds that need it (SCSI, NVMe). OSError."""
    place = sys / "block" / name / "device"
    for switch in (place / "rescan", place / "rescan_controller"):
        if switch.exists():
            switch.write_text("1")
            return


def grow_filesystem(root: Path, device: Path, filesystem: str) -> None:
    """Grow a mounted XFS or ext4 to the size of its device (blocking); no change if it has that
    size. OSError.
    """
    size = device_bytes(device)
    with _opened(root) as fd:
        if filesystem == "xfs":
            _grow_xfs(fd, size)
        else:
            block = os.fstatvfs(fd).f_bsize
            fcntl.ioctl(fd, _EXT4_RESIZE, _DATA_BLOCKS.pack(size // block))


def _grow_xfs(fd: int, size: int) -> None:
    raw = fcntl.ioctl(fd, _XFS_GEOMETRY_V1, bytes(_XFS_GEOMETRY_BYTES))
    block, _, _, _, _, _, _, percent = struct.unpack_from("<8I", raw)
    now = _DATA_BLOCKS.unpack_from(raw, _DATA_BLOCKS_AT)[0]
    wanted = size // block
    if wanted > now:
        fcntl.ioctl(fd, _XFS_GROW_DATA, struct.pack("<QI4x", wanted, percent))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
