"""Disks of the host."""

from __future__ import annotations

from vmkernel.model.base import Record

__all__ = ["Disk", "DiskPartition"]


class DiskPartition(Record, frozen=True, kw_only=True):
    """What lies on a part of a disk (or on the whole disk, where `number` is 0)."""

    number: int
    size_bytes: int
    filesystem: str | None = None
    """The signature that blkid proves, such as `xfs`, `ntfs`, `LVM2_member`; none if blank."""
    label: str | None = None
    uuid: str | None = None


class Disk(Record, frozen=True, kw_only=True):
    """A disk of the host."""

    id: str
    """The serial number; where the disk has none, its stable hardware path."""
    device: str
    """The kernel's name now, such as `/dev/nvme0n1`; it may change at the next boot."""
    model: str | None
    serial: str | None
    size_bytes: int
    transport: str | None
    """`nvme`, `sata`, `sas`, `usb`, `virtio`, `mmc`, … or none if unknown."""
    rotational: bool
    removable: bool
    is_stick: bool
    """True for the stick that Mica was started from."""
    blank: bool
    """True where neither a partition table nor any known signature is on it."""
    partitions: tuple[DiskPartition, ...] = ()
    datastore: str | None = None
    """The id of the datastore that lives on it."""
