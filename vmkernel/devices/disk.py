"""What all disk buses share: the block nodes below a disk, and what a bus module offers.

The block nodes of a disk, from the guest's side down:

  disk0              throttle filter; the device is attached to it for good
  disk0-format-<t>   qcow2 or raw; this one changes when the disk moves or gets a snapshot
  disk0-file-<t>     the file
  disk0-back<n>-…-<t>  layers of the backing chain of a linked clone or a snapshot, read-only

`<t>` is a tag that makes the names unique within a run of QEMU: `0` at its start, something new for
what is plugged in later. The limits are the throttle group `disk0-limits`, whose property `limits`
can be changed at any time. A CD-ROM drive needs no filter: its node `cdrom0` is the image itself,
over `cdrom0-file-<t>`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vmkernel.devices.arguments import NULL, Arguments
from vmkernel.devices.device import Board
from vmkernel.devices.plan import CdromPlan, DiskPlan, Family, number_of
from vmkernel.devices.slots import Place
from vmkernel.model import DiskLimits, Rate, VolumeFormat

__all__ = [
    "DiskBusKind",
    "IOTHREAD",
    "Unit",
    "add_cdrom_nodes",
    "add_disk_nodes",
    "cdrom_unit",
    "disk_unit",
    "limits_group",
    "throttle_limits",
]

IOTHREAD = "iothread0"
"""The thread that serves all virtio disks of a VM; every VM has it, for disks to come."""


@dataclass(frozen=True)
class Unit:
    """One disk or CD-ROM to be placed on a bus."""

    device_id: str
    """Its key; the block node has the same name."""
    index: int
    """The number in its key."""
    position: int | None
    """Counts the units of this bus within the VM; None on a bus on which the number in its key is
    its place."""
    has_medium: bool
    """False for an empty CD-ROM drive."""
    serial: str | None
    bootindex: int | None
    cdrom: bool
    write_cache: bool = True
    discard: bool = True

    @property
    def drive(self) -> str | None:
        """The block node."""
        return self.device_id if self.has_medium else None

    @property
    def on_write_error(self) -> str | None:
        """A guest is paused if a write fails on the host, whatever the reason, and the request is
        repeated when it continues: a full datastore or a dead path loses no data. (A failed read is
        reported to the guest. NVMe's model in QEMU can't pause: it reports to the guest.)
        """
        return None if self.cdrom else "stop"

    @property
    def write_cache_word(self) -> str | None:
        """The property `write-cache`; CD-ROM drives have none."""
        return None if self.cdrom else ("on" if self.write_cache else "off")


@dataclass(frozen=True)
class DiskBusKind:
    """A disk bus: its limits, and how it is put on the command line."""

    units_max: Callable[[Family], int]
    cdroms: bool
    """True if it supports CD-ROM drives."""
    unit: Callable[[Board, Unit], None]
    """Adds one disk or CD-ROM drive."""
    controllers: Callable[[Board], None] | None = None
    """Adds the controllers; called once if the bus is used and the disks aren't controllers
    themselves."""
    place: Mapping[Family, Place] = field(default_factory=dict)
    """The place of the controllers."""
    pci: bool = False
    """True if each unit is a PCI device."""
    read_only: bool = True
    """False if every disk is writable."""
    write_through: bool = True
    """False if the device always has a write cache."""
    hot_plug: Callable[[Family], bool] = lambda _family: False
    """True if units can be plugged and unplugged while the guest runs."""


def limits_group(key: str) -> str:
    """The id of a disk's throttle group."""
    return f"{key}-limits"


def throttle_limits(limits: DiskLimits | None) -> dict[str, int]:
    """The value of a throttle group's `limits` (QAPI: ThrottleLimits); what isn't limited is 0,
    so that a change of limits takes away the former ones."""
    wanted = limits or DiskLimits()
    found: dict[str, int] = {}
    for name, rate in (
        ("iops-total", wanted.iops),
        ("iops-read", wanted.read_iops),
        ("iops-write", wanted.write_iops),
        ("bps-total", wanted.bytes),
        ("bps-read", wanted.read_bytes),
        ("bps-write", wanted.write_bytes),
    ):
        found |= _rate(name, rate)
    return found


def _rate(name: str, rate: Rate | None) -> dict[str, int]:
    burst = rate.burst_per_s if rate is not None else None
    return {
        name: rate.per_s if rate is not None else 0,
        f"{name}-max": burst or 0,
        f"{name}-max-length": rate.burst_s if rate is not None and burst is not None else 1,
    }


def add_disk_nodes(args: Arguments, disk: DiskPlan, tag: str = "0") -> None:
    """The block nodes of a volume: the file, and its recorded format, never a detected one.

    Written data are durable when the guest's flush is answered; a discard frees blocks. The
    volume's record overrides the backing file in a qcow2 header.
    """
    key = disk.key
    below: str | None = None
    for number, layer in reversed(list(enumerate(disk.backing))):
        name = f"{key}-back{number}-{tag}"
        args.blockdev(
            "file",
            f"{key}-back{number}-file-{tag}",
            filename=str(layer.path),
            aio=disk.aio.value,
            cache={"direct": disk.direct, "no-flush": False},
            read_only=True,
            auto_read_only=False,
        )
        args.blockdev(
            layer.format.value,
            name,
            file=f"{key}-back{number}-file-{tag}",
            read_only=True,
            backing=_backing(layer.format, below),
        )
        below = name
    cache = {"direct": disk.direct, "no-flush": not disk.flushes}
    discard = "unmap" if disk.discard else "ignore"
    args.blockdev(
        "file",
        f"{key}-file-{tag}",
        filename=str(disk.path),
        aio=disk.aio.value,
        cache=cache,
        discard=discard,
        read_only=True if disk.read_only else None,
        auto_read_only=False,
    )
    args.blockdev(
        disk.format.value,
        f"{key}-format-{tag}",
        file=f"{key}-file-{tag}",
        discard=discard,
        cache=cache,
        read_only=True if disk.read_only else None,
        backing=_backing(disk.format, below),
    )
    args.object("throttle-group", limits_group(key), limits=throttle_limits(disk.limits))
    args.blockdev(
        "throttle",
        key,
        throttle_group=limits_group(key),
        file=f"{key}-format-{tag}",
        discard=discard,
        cache=cache,
        read_only=True if disk.read_only else None,
    )


def _backing(volume_format: VolumeFormat, below: str | None) -> object:
    """The node below a layer; a raw layer can't have one."""
    if volume_format is not VolumeFormat.QCOW2:
        return None
    return NULL if below is None else below


def add_cdrom_nodes(args: Arguments, cdrom: CdromPlan, tag: str = "0") -> None:
    """The block nodes of an ISO image; read-only down to the descriptor."""
    assert cdrom.path is not None
    file = f"{cdrom.key}-file-{tag}"
    args.blockdev(
        "file", file, filename=str(Path(cdrom.path)), read_only=True, auto_read_only=False
    )
    args.blockdev("raw", cdrom.key, file=file, read_only=True)


def disk_unit(disk: DiskPlan, position: int | None, bootindex: int | None) -> Unit:
    """A disk as its bus places it."""
    return Unit(
        device_id=disk.key,
        index=number_of(disk.key),
        position=position,
        has_medium=True,
        serial=disk.serial,
        bootindex=bootindex,
        cdrom=False,
        write_cache=disk.write_cache,
        discard=disk.discard,
    )


def cdrom_unit(cdrom: CdromPlan, position: int | None, bootindex: int | None) -> Unit:
    """A CD-ROM drive as its bus places it."""
    return Unit(
        device_id=cdrom.key,
        index=number_of(cdrom.key),
        position=position,
        has_medium=cdrom.path is not None,
        serial=None,
        bootindex=bootindex,
        cdrom=True,
    )
