"""The file of a volume: made, filled, resized, made durable; most of it blocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from vmkernel.host.files import (
    allocate,
    allocated_bytes,
    create_file,
    open_regular,
    reflink,
    sync_file,
)
from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import Allocation, VolumeFormat
from vmkernel.storage.catalogue import VolumeEntry
from vmkernel.storage.datastores.room import Room, Shape, qcow2_overhead

__all__ = [
    "allocate_raw",
    "copy_volume",
    "finish",
    "make_file",
    "open_to_readers",
    "space_for_copy",
    "whole_blocks",
]

_BLOCK_BYTES = 4096
"""The sector size of newer disks, on which a file of another length can't be opened bypassing the
page cache."""


def whole_blocks(size_bytes: int) -> int:
    """The size of a volume, rounded up."""
    return -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


def make_file(path: Path) -> None:
    """A new empty file; qemu-img and a VM's start set its owner."""
    os.close(create_file(path))


def finish(path: Path, shape: Shape) -> None:
    """Give a raw file its size, with all its blocks if it is thick, and make the file durable."""
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
    """Allocate all blocks of a raw file."""
    fd = open_regular(path, os.O_RDWR, single=True)
    try:
        allocate(fd, size_bytes)
    finally:
        os.close(fd)


def open_to_readers(path: Path) -> None:
    """Let QEMUs and qemu-imgs of other users read a file that they are given."""
    fd = open_regular(path, os.O_RDONLY)
    try:
        os.fchmod(fd, (os.fstat(fd).st_mode & 0o777) | 0o044)
    finally:
        os.close(fd)


def space_for_copy(source: VolumeEntry, shape: Shape, chain: Sequence[VolumeEntry] = ()) -> int:
    """Bytes to reserve for a copy of a volume with this backing chain."""
    volume_format, allocation, size_bytes = shape
    overhead = qcow2_overhead(size_bytes) if volume_format is VolumeFormat.QCOW2 else 0
    if allocation is Allocation.THICK:
        return size_bytes + overhead
    filled = sum(allocated_bytes(layer.place.data) for layer in (source, *chain))
    return min(filled, source.size_bytes) + overhead


async def copy_volume(
    qemu_img: QemuImg,
    source: VolumeEntry,
    target: Path,
    shape: Shape,
    room: Room,
    *,
    on_fraction: Callable[[float], None],
    chain: Sequence[VolumeEntry] = (),
    snapshot: str | None = None,
) -> bool:
    """Fill the new file `target` with the content of a volume with the backing `chain`, and make it
    durable. True if the two share their blocks.

    They do (reflink) if format and allocation stay the same and the file system can; else qemu-img
    copies. Nothing may have the source open for writing, unless a `snapshot` inside it is copied.
    """
    volume_format, allocation, size_bytes = shape
    path, record = source.place.data, source.record
    await asyncio.to_thread(make_file, target)
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
        layers = [(layer.place.data, layer.format.value) for layer in chain]
        limit = await room.for_copy(
            qemu_img, (path, source.format.value), shape, chain=layers, snapshot=snapshot
        )
        await qemu_img.convert(
            path,
            source.format.value,
            target,
            volume_format.value,
            thick=thick,
            on_fraction=on_fraction,
            file_bytes=limit,
            chain=layers,
            snapshot=snapshot,
        )
    if size_bytes > source.size_bytes and volume_format is VolumeFormat.QCOW2:
        await qemu_img.resize(target, volume_format.value, size_bytes, shrink=False, thick=thick)
    await asyncio.to_thread(finish, target, shape)
    on_fraction(1.0)
    return shared
