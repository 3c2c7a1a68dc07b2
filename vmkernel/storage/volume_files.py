"""The file of a volume: made, filled, brought to its size, made durable; most of it blocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from vmkernel.host.files import (
    allocate,
    allocated_bytes,
    create_file,
    look,
    open_regular,
    reflink,
    sync_file,
)
from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import Allocation, VolumeFormat
from vmkernel.storage.catalogue import VolumeEntry

__all__ = [
    "QCOW2_OVERHEAD_BYTES",
    "Shape",
    "allocate_raw",
    "copy_volume",
    "finish",
    "make_file",
    "open_to_readers",
    "owner",
    "space_for_copy",
]

QCOW2_OVERHEAD_BYTES = 1 << 20

Shape = tuple[VolumeFormat, Allocation, int]
"""Format, allocation and size in bytes of a volume that is being made."""


def owner(path: Path, worker_uid: int | None) -> int | None:
    """The uid to run qemu-img as on a volume's file: its owner, where we aren't that."""
    uid = look(path).st_uid
    return None if worker_uid is None or uid == os.getuid() else uid


def make_file(path: Path, uid: int | None) -> int | None:
    """A new empty file that `uid` may write; the uid to write it as."""
    fd = create_file(path)
    try:
        if uid is not None:
            os.fchown(fd, uid, uid)
    finally:
        os.close(fd)
    return uid


def finish(path: Path, shape: Shape) -> None:
    """Bring a raw file to its size, with all its blocks where it is thick, and make the file
    durable."""
    volume_format, allocation, size_bytes = shape
    if volume_format is VolumeFormat.RAW:
        fd = open_regular(path, os.O_RDWR, single=True)
        try:
            if os.fstat(fd).st_size < size_bytes:
                os.ftruncate(fd, size_bytes)
        finally:
            os.close(fd)
        if allocation is Allocation.THICK:
            allocate_raw(path, size_bytes)
    sync_file(path)


def allocate_raw(path: Path, size_bytes: int) -> None:
    """Take all the space of a raw file."""
    fd = open_regular(path, os.O_RDWR, single=True)
    try:
        allocate(fd, size_bytes)
    finally:
        os.close(fd)


def open_to_readers(path: Path) -> None:
    """Let other users' QEMUs and qemu-imgs read a file that they are given."""
    fd = open_regular(path, os.O_RDONLY)
    try:
        os.fchmod(fd, (os.fstat(fd).st_mode & 0o777) | 0o044)
    finally:
        os.close(fd)


def space_for_copy(source: VolumeEntry, shape: Shape, chain: Sequence[VolumeEntry] = ()) -> int:
    """Bytes to set aside for a copy of a volume that stands on `chain`."""
    volume_format, allocation, size_bytes = shape
    overhead = QCOW2_OVERHEAD_BYTES if volume_format is VolumeFormat.QCOW2 else 0
    if allocation is Allocation.THICK:
        return size_bytes + overhead
    filled = sum(allocated_bytes(layer.place.data) for layer in (source, *chain))
    return min(filled, source.size_bytes) + overhead


async def copy_volume(
    qemu_img: QemuImg,
    source: VolumeEntry,
    target: Path,
    shape: Shape,
    *,
    worker_uid: int | None,
    on_fraction: Callable[[float], None],
    chain: Sequence[VolumeEntry] = (),
    snapshot: str | None = None,
) -> bool:
    """Fill the new file `target` with what a volume holds that stands on `chain`, and make it
    durable. True where the two share their blocks.

    They do (reflink) where format and allocation stay and the file system can; else qemu-img
    copies. Nothing may have the source open for writing, unless what a `snapshot` inside it holds
    is copied.
    """
    volume_format, allocation, size_bytes = shape
    path, record = source.place.data, source.record
    user = await asyncio.to_thread(owner, path, worker_uid)
    await asyncio.to_thread(make_file, target, worker_uid if user is None else user)
    alike = source.format is volume_format and size_bytes == source.size_bytes
    thick = allocation is Allocation.THICK
    shared = (
        alike
        and not thick
        and not chain
        and snapshot is None
        and (record is None or record.allocation is allocation)
        and await asyncio.to_thread(reflink, path, target)
    )
    if not shared:
        await qemu_img.convert(
            path,
            source.format.value,
            target,
            volume_format.value,
            thick=thick,
            on_fraction=on_fraction,
            user=user,
            chain=[(layer.place.data, layer.format.value) for layer in chain],
            snapshot=snapshot,
        )
    if size_bytes > source.size_bytes and volume_format is VolumeFormat.QCOW2:
        await qemu_img.resize(
            target, volume_format.value, size_bytes, shrink=False, thick=thick, user=user
        )
    await asyncio.to_thread(finish, target, shape)
    on_fraction(1.0)
    return shared
