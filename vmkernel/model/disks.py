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
    """A verdict on what a disk reports of itself; `unknown` if it can't be asked or is asleep."""

    UNKNOWN = "unknown"
    """It can't be asked, sleeps, or was not asked yet."""
    OK = "ok"
    WARNING = "warning"
    """It works, with damage or wear."""
    FAILING = "failing"
    """It says that it fails, or that its data may be lost soon."""


class DiskHealth(Record, frozen=True, kw_only=True):
    """SMART, the NVMe health log or SCSI's log pages, in common terms; null if not reported."""

    state: HealthState
    reason: str | None = None
    """Why it is not `ok`."""
    checked_at: Timestamp | None = None
    """When the disk itself was last read."""
    temperature_celsius: int | None = None
    wear_percent: int | None = None
    """Used part of the endurance of flash; may go beyond 100."""
    spare_percent: int | None = None
    power_on_hours: int | None = None
    reallocated_sectors: int | None = None
    """Sectors replaced for good (NVMe reports none)."""
    pending_sectors: int | None = None
    """Sectors that can't be read now."""
    media_errors: int | None = None
    """Data that were lost, by the disk's own count."""


class Disk(Record, frozen=True, kw_only=True):
    """A disk of the host."""

    id: str
    """The serial number; its stable hardware path if it has none."""
    device: str
    """The kernel's name now; it may change at the next boot."""
    model: str | None
    serial: str | None
    size_bytes: int
    transport: str | None
    """`nvme`, `sata`, `sas`, `usb`, `virtio`, `mmc`, …"""
    rotational: bool
    removable: bool
    is_stick: bool
    """True for the stick that Mica was started from."""
    blank: bool
    """True if no partition table and no known signature is on it."""
    partitions: tuple[DiskPartition, ...] = ()
    datastore: str | None = None
    """The id of the datastore that lives on it."""
    adoptable: DatastoreKind | None = None
    """The kind of datastore on it that this host does not know."""
    health: DiskHealth | None = None
    """Null if the host does not look after disks' health."""


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
