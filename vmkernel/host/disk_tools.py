"""The tools that change what a disk holds: wipefs, sfdisk, mkfs. Callers must have
checked first.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from vmkernel.host.errors import HostError, from_os_error
from vmkernel.host.runner import Runner
from vmkernel.model import ErrorCode, Filesystem

__all__ = [
    "grow_last_partition",
    "hold_exclusively",
    "make_ext4",
    "make_filesystem",
    "make_one_partition",
    "make_xfs",
    "read_partitions_again",
    "wait_for",
    "wipe",
]

_QUICK_S = 60.0
_BLKRRPART = 0x125F
_MKFS_S = 1800.0
"""Discarding all blocks of a large, slow disk takes minutes."""


def hold_exclusively(device: Path) -> None:
    """Return if no one else uses the device: not mounted, no swap, no RAID or LVM member."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise HostError(f"{device} is in use.", ErrorCode.IN_USE) from error
        raise from_os_error(error, f"{device} can't be opened") from error


async def wipe(runner: Runner, device: Path) -> None:
    """Remove every known signature from a device."""
    await runner.run(["wipefs", "--all", "--force", "--quiet", device], timeout_s=_QUICK_S)


def read_partitions_again(disk: Path) -> None:
    """Have the kernel read a disk's partition table again; none of it may be in use."""
    try:
        fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _BLKRRPART)
        finally:
            os.close(fd)
    except OSError as error:
        raise from_os_error(error, f"The partitions of {disk} can't be read again") from error


async def make_one_partition(runner: Runner, disk: Path, *, type_guid: str, name: str) -> None:
    """A new GPT with one partition over the whole disk, aligned as sfdisk does."""
    script = f'label: gpt\ntype={type_guid}, name="{name}"\n'
    await runner.run(
        ["sfdisk", "--lock=yes", "--wipe=always", "--wipe-partitions=always", "--quiet", disk],
        timeout_s=_QUICK_S,
        input_data=script.encode(),
    )


async def grow_last_partition(runner: Runner, disk: Path, number: int) -> None:
    """Move the GPT's backup to the end of the disk and extend a partition up to it, in the table
    only.

    The partition may be in use; `resize_partition` updates the kernel. Each step writes a whole
    table with its checksums, so that a crash leaves the old one or the new.
    """
    common = ["sfdisk", "--lock=yes", "--no-reread", "--no-tell-kernel", "--force", "--quiet"]
    await runner.run([*common, "--relocate", "gpt-bak-std", disk], timeout_s=_QUICK_S)
    await runner.run([*common, "-N", str(number), disk], timeout_s=_QUICK_S, input_data=b", +\n")


async def make_filesystem(
    runner: Runner, device: Path, filesystem: Filesystem, *, label: str
) -> None:
    """XFS with reflinks, or ext4 without blocks reserved for root."""
    if filesystem is Filesystem.XFS:
        await make_xfs(runner, device, label=label)
    else:
        await make_ext4(runner, device, label=label)


async def make_xfs(runner: Runner, device: Path, *, label: str) -> None:
    """XFS with reflinks."""
    await runner.run(
        ["mkfs.xfs", "-f", "-q", "-m", "reflink=1", "-L", label, device], timeout_s=_MKFS_S
    )


async def make_ext4(runner: Runner, device: Path, *, label: str) -> None:
    """ext4 without blocks reserved for root."""
    await runner.run(["mkfs.ext4", "-F", "-q", "-m", "0", "-L", label, device], timeout_s=_MKFS_S)


async def wait_for(condition: Callable[[], bool], *, what: str, timeout_s: float = 20.0) -> None:
    """Poll until the kernel and udev have caught up."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise HostError(f"{what} did not appear within {timeout_s:g} s.", ErrorCode.TIMED_OUT)
        await asyncio.sleep(0.05)
