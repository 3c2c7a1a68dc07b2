"""Disks of the host."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import WireModel

__all__ = ["Disk", "DiskPage", "DiskPartition"]


class DiskPartition(WireModel, frozen=True, kw_only=True):
    """What lies on a part of a disk (or on the whole disk, where `number` is 0)."""

    number: int
    size_bytes: int
    filesystem: Annotated[
        str | None, Meta(description="The signature found, such as `xfs`, `ntfs`, `LVM2_member`.")
    ] = None
    label: str | None = None
    uuid: str | None = None


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


class DiskPage(WireModel, frozen=True, kw_only=True):
    """A part of the host's disks."""

    items: tuple[Disk, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]
