"""What all disk buses share: the file below a disk, and what a bus module offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vmkernel.devices.arguments import NULL, Arguments
from vmkernel.devices.plan import DiskPlan, Family
from vmkernel.devices.slots import Slots
from vmkernel.model import VolumeFormat

__all__ = ["Board", "DiskBusKind", "IOTHREAD", "Unit", "cdrom_medium", "disk_medium"]

IOTHREAD = "iothread0"
"""The thread that serves all virtio disks of a VM."""


@dataclass(frozen=True)
class Unit:
    """One disk or CD-ROM to be placed on a bus."""

    device_id: str
    number: int
    """Counts the units of this bus within the VM."""
    drive: str | None
    """The block node; None for an empty CD-ROM drive."""
    serial: str | None
    bootindex: int | None
    cdrom: bool


@dataclass(frozen=True)
class Board:
    """The machine under construction, as device modules see it."""

    args: Arguments
    slots: Slots
    family: Family


@dataclass(frozen=True)
class DiskBusKind:
    """A disk bus: its limits, and how it is put on the command line."""

    units_max: Callable[[Family], int]
    cdroms: bool
    """True where a CD-ROM drive can hang on it."""
    iothread: bool
    unit: Callable[[Board, Unit], None]
    """Adds one disk or CD-ROM drive."""
    controllers: Callable[[Board], None] | None = None
    """Adds the controllers; called once where the bus is used and the disks aren't controllers."""
    pci: bool = False
    """True where each unit is a PCI device of its own."""


def disk_medium(args: Arguments, node: str, disk: DiskPlan) -> None:
    """The block nodes of a volume: the file, and the format that is known, never guessed.

    Written data are durable when the guest's flush is answered; a discard frees blocks. A qcow2
    header that names a backing file is overruled: a volume stands on its own.
    """
    args.blockdev(
        "file",
        f"{node}-file",
        filename=str(disk.path),
        aio=disk.aio.value,
        cache={"direct": disk.direct, "no-flush": False},
        discard="unmap",
        auto_read_only=False,
    )
    args.blockdev(
        disk.format.value,
        node,
        file=f"{node}-file",
        discard="unmap",
        cache={"direct": disk.direct, "no-flush": False},
        backing=NULL if disk.format is VolumeFormat.QCOW2 else None,
    )


def cdrom_medium(args: Arguments, node: str, path: Path) -> None:
    """The block nodes of an ISO image; read-only down to the descriptor."""
    args.blockdev("file", f"{node}-file", filename=str(path), read_only=True, auto_read_only=False)
    args.blockdev("raw", node, file=f"{node}-file", read_only=True)
