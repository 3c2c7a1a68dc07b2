"""Disks of the host."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import ShortText, Timestamp, WireEnum, WireModel
from remote_api.schema.datastores import DatastoreKind

__all__ = [
    "Disk",
    "DiskHealth",
    "DiskPage",
    "DiskPartition",
    "HealthState",
    "WipeDiskBody",
]


class DiskPartition(WireModel, frozen=True, kw_only=True):
    """What lies on a part of a disk (or on the whole disk, where `number` is 0)."""

    number: int
    size_bytes: int
    filesystem: Annotated[
        str | None, Meta(description="The signature found, such as `xfs`, `ntfs`, `LVM2_member`.")
    ] = None
    label: str | None = None
    uuid: str | None = None


class HealthState(WireEnum):
    """What a disk says of itself, judged; `unknown` where it can't be asked or sleeps."""

    UNKNOWN = "unknown"
    OK = "ok"
    WARNING = "warning"
    FAILING = "failing"


class DiskHealth(WireModel, frozen=True, kw_only=True):
    """SMART, the NVMe health log or SCSI's log pages, in common terms; null where not told."""

    state: HealthState
    reason: Annotated[str | None, Meta(description="Why it is not `ok`.")] = None
    checked_at: Annotated[
        Timestamp | None, Meta(description="When the disk itself was last read.")
    ] = None
    temperature_celsius: int | None = None
    wear_percent: Annotated[
        int | None, Meta(description="Used part of the endurance of flash; may go beyond 100.")
    ] = None
    spare_percent: int | None = None
    power_on_hours: int | None = None
    reallocated_sectors: int | None = None
    pending_sectors: Annotated[int | None, Meta(description="Sectors that can't be read now.")] = (
        None
    )
    media_errors: Annotated[
        int | None, Meta(description="Data that were lost, by the disk's own count.")
    ] = None


class Disk(WireModel, frozen=True, kw_only=True):
    """A disk of the host."""

    id: Annotated[
        str, Meta(description="The serial number; its stable hardware path where it has none.")
    ]
    device: Annotated[
        str, Meta(description="The kernel's name now; it may change at the next boot.")
    ]
    model: str | None
    serial: str | None
    size_bytes: int
    transport: Annotated[
        str | None, Meta(description="`nvme`, `sata`, `sas`, `usb`, `virtio`, `mmc`, …")
    ]
    rotational: bool
    removable: bool
    is_stick: Annotated[bool, Meta(description="True for the stick that Mica was started from.")]
    blank: Annotated[
        bool, Meta(description="True where no partition table and no known signature is on it.")
    ]
    partitions: tuple[DiskPartition, ...] = ()
    datastore: Annotated[
        str | None, Meta(description="The id of the datastore that lives on it.")
    ] = None
    adoptable: Annotated[
        DatastoreKind | None,
        Meta(description="The kind of datastore on it that this host does not know."),
    ] = None
    health: DiskHealth | None = None


class DiskPage(WireModel, frozen=True, kw_only=True):
    """A part of the host's disks."""

    items: tuple[Disk, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class WipeDiskBody(WireModel, frozen=True, kw_only=True):
    """A disk whose contents are to be destroyed."""

    disk: Annotated[ShortText, Meta(description="Its id.")]
    wipe_serial: Annotated[
        ShortText, Meta(description="The id once more: consent to destroy all that it holds.")
    ]
