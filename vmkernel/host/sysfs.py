"""What the kernel tells in /sys and /proc: careful reads of small files, and block devices.

Everything takes the folder it reads from, so that a test reads a made-up tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "BlockDisk",
    "BlockPartition",
    "BlockTraffic",
    "DEV",
    "PROC",
    "SYS",
    "block_disk",
    "block_disks",
    "block_traffic",
    "link_name",
    "read_int",
    "read_text",
    "subfolders",
]

SYS = Path("/sys")
PROC = Path("/proc")
DEV = Path("/dev")

SECTOR_BYTES = 512
"""What block sizes and counters in sysfs count in, whatever the device's own sector is."""

_NO_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd")
_STAT_READ_SECTORS = 2
_STAT_WRITTEN_SECTORS = 6


@dataclass(frozen=True)
class BlockPartition:
    """A partition as the kernel sees it."""

    name: str
    device: Path
    number: int
    start_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class BlockDisk:
    """A whole disk."""

    name: str
    device: Path
    size_bytes: int
    removable: bool
    usb: bool
    model: str | None
    serial: str | None
    partitions: tuple[BlockPartition, ...]


@dataclass(frozen=True)
class BlockTraffic:
    """What went through the block layer since the device came."""

    read_bytes: int
    written_bytes: int


def read_text(path: Path) -> str | None:
    """A small file's text without white space around it; None where it can't be read."""
    try:
        return path.read_bytes().decode(errors="replace").strip("\0 \t\r\n")
    except OSError:
        return None


def read_int(path: Path, base: int = 10) -> int | None:
    """A number; None where there is none."""
    text = read_text(path)
    try:
        return int(text, base) if text else None
    except ValueError:
        return None


def link_name(path: Path) -> str | None:
    """The last part of where a symbolic link leads, such as a device's driver."""
    try:
        return path.readlink().name
    except OSError:
        return None


def subfolders(path: Path) -> tuple[str, ...]:
    """The sorted names in a folder; none where there is no such folder."""
    try:
        return tuple(sorted(os.listdir(path)))  # noqa: PTH208 - names are what is wanted
    except OSError:
        return ()


def block_disks(sys: Path = SYS, dev: Path = DEV) -> Iterator[BlockDisk]:
    """The disks of the machine, without what is made of files, memory or other disks."""
    for name in subfolders(sys / "block"):
        if not name.startswith(_NO_DISKS):
            disk = block_disk(name, sys, dev)
            if disk is not None:
                yield disk


def block_disk(name: str, sys: Path = SYS, dev: Path = DEV) -> BlockDisk | None:
    """One disk; None where it is gone or has no medium."""
    folder = sys / "block" / name
    sectors = read_int(folder / "size")
    if not sectors:
        return None
    real = folder.resolve()
    usb_device = _usb_device(real)
    return BlockDisk(
        name=name,
        device=dev / name,
        size_bytes=sectors * SECTOR_BYTES,
        removable=read_int(folder / "removable") == 1,
        usb=usb_device is not None,
        model=_model(folder, usb_device),
        serial=_serial(folder, usb_device),
        partitions=tuple(_partitions(folder, dev)),
    )


def block_traffic(name: str, sys: Path = SYS) -> BlockTraffic | None:
    """The counters of a disk; None where it is gone."""
    fields = (read_text(sys / "block" / name / "stat") or "").split()
    if len(fields) <= _STAT_WRITTEN_SECTORS:
        return None
    return BlockTraffic(
        read_bytes=int(fields[_STAT_READ_SECTORS]) * SECTOR_BYTES,
        written_bytes=int(fields[_STAT_WRITTEN_SECTORS]) * SECTOR_BYTES,
    )


def _partitions(folder: Path, dev: Path) -> Iterator[BlockPartition]:
    for name in subfolders(folder):
        number = read_int(folder / name / "partition")
        start = read_int(folder / name / "start")
        size = read_int(folder / name / "size")
        if number is not None and start is not None and size is not None:
            yield BlockPartition(
                name=name,
                device=dev / name,
                number=number,
                start_bytes=start * SECTOR_BYTES,
                size_bytes=size * SECTOR_BYTES,
            )


def _usb_device(real: Path) -> Path | None:
    """The USB device that a block device hangs on."""
    for parent in real.parents:
        if (parent / "idVendor").exists() and (parent / "busnum").exists():
            return parent
    return None


def _model(folder: Path, usb_device: Path | None) -> str | None:
    model = read_text(folder / "device/model") or read_text(folder / "device/name")
    vendor = read_text(folder / "device/vendor")
    if usb_device is not None:
        vendor = read_text(usb_device / "manufacturer") or vendor
        model = read_text(usb_device / "product") or model
    if vendor and model and not vendor.startswith("0x") and vendor != "ATA":
        return model if model.startswith(vendor) else f"{vendor} {model}"
    return model or None


def _serial(folder: Path, usb_device: Path | None) -> str | None:
    for path in (folder / "serial", folder / "device/serial"):
        if serial := read_text(path):
            return serial
    if usb_device is not None:
        return read_text(usb_device / "serial") or None
    page = folder / "device/vpd_pg80"
    try:
        return page.read_bytes()[4:].decode(errors="replace").strip("\0 ") or None
    except OSError:
        return None
