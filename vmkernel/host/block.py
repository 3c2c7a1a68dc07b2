"""Disks as datastores need them: a stable id, how they hang on, who holds them; it reads only."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from vmkernel.host.gpt import GptTable, read_gpt
from vmkernel.host.sysfs import DEV, SYS, BlockDisk, block_disks, read_int, read_text, subfolders

__all__ = ["BlockTree", "HostDisk"]

_UDEV = Path("/run/udev/data")


@dataclass(frozen=True)
class HostDisk:
    """A whole disk with what identifies it."""

    id: str
    """The serial number, or else the hardware path; names one disk at any moment."""
    path_id: str
    disk: BlockDisk
    transport: str | None
    rotational: bool
    read_only: bool
    device_numbers: frozenset[str]
    """`major:minor` of the disk and of all its partitions, as mountinfo names them."""
    holders: tuple[str, ...]
    """Block devices made of it or its partitions: RAID, LVM, dm-crypt."""

    @property
    def name(self) -> str:
        """The kernel's name now."""
        return self.disk.name


class BlockTree:
    """Reads below the given folders, so that a test reads a made-up tree."""

    def __init__(self, sys: Path = SYS, dev: Path = DEV, udev: Path = _UDEV) -> None:
        self._sys = sys
        self._dev = dev
        self._udev = udev

    def disks(self) -> tuple[HostDisk, ...]:
        """Every disk with a medium, ordered by id."""
        found = []
        for disk in block_disks(self._sys, self._dev):
            if (self._sys / "block" / disk.name / "device").exists():
                with contextlib.suppress(OSError):  # it went away meanwhile
                    found.append(self._describe(disk))
        shared = Counter(disk.id for disk in found)
        unique = (
            replace(disk, id=f"{disk.id}@{disk.path_id}") if shared[disk.id] > 1 else disk
            for disk in found
        )
        return tuple(sorted(unique, key=lambda disk: disk.id))

    @staticmethod
    def table(disk: HostDisk) -> GptTable | None:
        """The GPT on the disk; None where there is none or it can't be read."""
        try:
            return read_gpt(disk.disk.device)
        except OSError:
            return None

    def _describe(self, disk: BlockDisk) -> HostDisk:
        folder = self._sys / "block" / disk.name
        real = folder.resolve()
        parts = [folder, *(folder / part.name for part in disk.partitions)]
        numbers = [read_text(part / "dev") or "" for part in parts]
        path_id = self._udev_path(numbers[0]) or _hardware_path(real, self._sys)
        return HostDisk(
            id=_printable(disk.serial) or path_id,
            path_id=path_id,
            disk=disk,
            transport=_transport(disk.name, str(real)),
            rotational=read_int(folder / "queue/rotational") == 1,
            read_only=read_int(folder / "ro") == 1,
            device_numbers=frozenset(number for number in numbers if number),
            holders=tuple(name for part in parts for name in subfolders(part / "holders")),
        )

    def _udev_path(self, number: str) -> str | None:
        for line in (read_text(self._udev / f"b{number}") or "").splitlines():
            if line.startswith("E:ID_PATH="):
                return line.partition("=")[2]
        return None


def _printable(text: str | None) -> str:
    return "".join(c for c in text or "" if c.isprintable()).strip()


def _hardware_path(real: Path, sys: Path) -> str:
    """Where the disk hangs, without the parts that count devices as they come."""
    with contextlib.suppress(ValueError):
        real = real.relative_to(sys.resolve() / "devices")
    kept = [part for part in real.parts if ":" in part or part.startswith("ata")]
    return "/".join(kept) or real.name


def _transport(name: str, real: str) -> str | None:
    if name.startswith("nvme"):
        return "nvme"
    if name.startswith("mmcblk"):
        return "mmc"
    for mark, transport in (
        ("/usb", "usb"),
        ("/ata", "sata"),
        ("/end_device-", "sas"),
        ("/rport-", "fc"),
        ("/session", "iscsi"),
        ("/virtio", "virtio"),
    ):
        if mark in real:
            return transport
    return None
