"""Disks of the host."""

from __future__ import annotations

from vmkernel.model.base import OpenEnum, Record, Timestamp
from vmkernel.model.datastores import DatastoreKind
from vmkernel.model.listing import Column, Listing

__all__ = ["DISK_LISTING", "Disk", "DiskHealth", "DiskPartition", "HealthState"]


class DiskPartition(Record, frozen=True, kw_only=True):
    """What is on a partition of a disk (or on the whole disk, if `number` is 0)."""

    number: int
    size_bytes: int
    filesystem: str | None = None
    """The signature found, such as `xfs`, `ntfs`, `LVM2_member`."""
    label: str | None = None
    uuid: str | None = None


class HealthState(OpenEnum):
    """The health that a disk reports; `unknown` if it can't be read or is asleep."""

    UNKNOWN = "unknown"
    """It can't be read, is asleep, or was not read yet."""
    OK = "ok"
    WARNING = "warning"
    """It works but shows damage or wear."""
    FAILING = "failing"
    """It reports that it is failing, or that its data may be lost soon."""


class DiskHealth(Record, frozen=True, kw_only=True):
    """SMART, the NVMe health log or SCSI log pages, in common terms; a field is null if the disk
    doesn't report it.
    """

    state: HealthState
    reason: str | None = None
    """Why the state is not `ok`."""
    checked_at: Timestamp | None = None
    """When the disk itself was last read."""
    temperature_celsius: int | None = None
    wear_percent: int | None = None
    """How much of the flash memory's endurance is used; can exceed 100."""
    spare_percent: int | None = None
    power_on_hours: int | None = None
    reallocated_sectors: int | None = None
    """Sectors replaced permanently (NVMe reports none)."""
    pending_sectors: int | None = None
    """Sectors that can't be read at present."""
    media_errors: int | None = None
    """How often data were lost, as counted by the disk."""


class Disk(Record, frozen=True, kw_only=True):
    """A disk of the host."""

    id: str
    """The serial number; the stable hardware path if it has none."""
    device: str
    """The kernel's present name; it can change at the next boot."""
    model: str | None
    serial: str | None
    size_bytes: int
    transport: str | None
    """`nvme`, `sata`, `sas`, `usb`, `virtio`, `mmc`, …"""
    rotational: bool
    removable: bool
    is_stick: bool
    """True for the USB stick that Mica was booted from."""
    blank: bool
    """True if it has no partition table and no known signature."""
    partitions: tuple[DiskPartition, ...] = ()
    datastore: str | None = None
    """The ID of the datastore on it."""
    adoptable: DatastoreKind | None = None
    """The kind of datastore found on it that is not attached to this host."""
    health: DiskHealth | None = None
    """Null if the host does not monitor disks."""


DISK_LISTING = Listing(
    item=Disk,
    filters={
        "id": Column("id"),
        "device": Column("device"),
        "model": Column("model"),
        "serial": Column("serial"),
        "transport": Column("transport"),
        "rotational": Column("rotational"),
        "removable": Column("removable"),
        "blank": Column("blank"),
        "is_stick": Column("is_stick"),
        "datastore": Column("datastore", text="The one that is on it; empty for none."),
        "health": Column("health.state"),
    },
    sort={
        "id": Column("id"),
        "device": Column("device"),
        "model": Column("model"),
        "transport": Column("transport"),
        "size_bytes": Column("size_bytes"),
    },
    summary=(
        *("device", "model", "size_bytes", "transport", "is_stick", "blank", "datastore"),
        "health.state",
    ),
)
