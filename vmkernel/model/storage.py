"""Disks of the host, datastores, volumes and images."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from vmkernel.model.base import Record, Sha256Hex, Slug, Timestamp

__all__ = [
    "Datastore",
    "DatastoreKind",
    "DatastoreSpec",
    "DatastoreState",
    "DatastoreStatus",
    "Disk",
    "DiskPartition",
    "Filesystem",
    "Image",
    "ImageFormat",
    "ImageSpec",
    "ImageStatus",
    "Volume",
    "VolumeFormat",
    "VolumeSpec",
    "VolumeStatus",
]

SECTOR_BYTES = 512


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


class DatastoreKind(StrEnum):
    """Where a datastore's files come from."""

    LOCAL = "local"
    DIRECTORY = "directory"


class Filesystem(StrEnum):
    """File systems that Mica makes for a datastore."""

    XFS = "xfs"
    EXT4 = "ext4"


class DatastoreSpec(Record, frozen=True, kw_only=True):
    """What a datastore is wanted to be."""

    kind: DatastoreKind
    disk: str | None = None
    """`local`: the id of the disk (see Disk.id)."""
    filesystem: Filesystem = Filesystem.XFS
    """`local`: what is made when the disk is wiped."""
    path: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    """`directory` (hosted mode only): an absolute path."""


class DatastoreState(StrEnum):
    """Whether a datastore can be used now."""

    AVAILABLE = "available"
    MISSING = "missing"
    FAILED = "failed"


class DatastoreStatus(Record, frozen=True, kw_only=True):
    """What is observed of a datastore."""

    state: DatastoreState
    uuid: str | None = None
    reason: str | None = None
    capacity_bytes: int = 0
    free_bytes: int = 0
    device: str | None = None
    filesystem: str | None = None


class Datastore(Record, frozen=True, kw_only=True):
    """A place for virtual machines, volumes and images."""

    id: Slug
    revision: int
    created_at: Timestamp
    spec: DatastoreSpec
    status: DatastoreStatus


class VolumeFormat(StrEnum):
    """How a volume's data lie in its file."""

    QCOW2 = "qcow2"
    RAW = "raw"


class VolumeSpec(Record, frozen=True, kw_only=True):
    """What a volume is wanted to be."""

    datastore: Slug
    size_bytes: Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 50, multiple_of=SECTOR_BYTES)]
    format: VolumeFormat = VolumeFormat.QCOW2
    source_image: Slug | None = None
    """Filled from this image at creation; the size must hold it."""


class VolumeStatus(Record, frozen=True, kw_only=True):
    """What is observed of a volume."""

    allocated_bytes: int
    attached_to: str | None = None
    """The id of the VM whose spec names the volume."""
    reason: str | None = None
    """Why the volume can't be used, where it can't."""


class Volume(Record, frozen=True, kw_only=True):
    """A virtual disk."""

    id: Slug
    revision: int
    created_at: Timestamp
    spec: VolumeSpec
    status: VolumeStatus


class ImageFormat(StrEnum):
    """What an uploaded image is; the header must prove it."""

    ISO = "iso"
    QCOW2 = "qcow2"
    RAW = "raw"
    LINUX_KERNEL = "linux-kernel"
    LINUX_INITRD = "linux-initrd"


class ImageSpec(Record, frozen=True, kw_only=True):
    """What an image is declared to be by who uploads it."""

    datastore: Slug
    format: ImageFormat
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]
    sha256: Sha256Hex


class ImageStatus(Record, frozen=True, kw_only=True):
    """What is observed of an image."""

    virtual_size_bytes: int
    """The size of the disk that the image holds; the file's size where it is no disk."""
    used_by: tuple[str, ...] = ()
    """The ids of the VMs whose specs name it."""
    reason: str | None = None
    """Why the image can't be used, where it can't."""


class Image(Record, frozen=True, kw_only=True):
    """An ISO, disk template, kernel or initrd."""

    id: Slug
    created_at: Timestamp
    spec: ImageSpec
    status: ImageStatus
