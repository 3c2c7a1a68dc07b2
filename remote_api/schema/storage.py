"""Disks of the host, datastores, volumes and images."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from remote_api.schema.base import PageQuery, Sha256Hex, Slug, Timestamp, WireModel

__all__ = [
    "Datastore",
    "DatastoreBody",
    "DatastoreKind",
    "DatastorePage",
    "DatastoreSpec",
    "DatastoreState",
    "DatastoreStatus",
    "Disk",
    "DiskPage",
    "DiskPartition",
    "Filesystem",
    "Image",
    "ImageFormat",
    "ImagePage",
    "ImageSpec",
    "ImageStatus",
    "StoredPageQuery",
    "UploadQuery",
    "Volume",
    "VolumeBody",
    "VolumeFormat",
    "VolumePage",
    "VolumePatchQuery",
    "VolumeSpec",
    "VolumeStatus",
]

MAX_BYTES = 1 << 50


ShortText = Annotated[str, Meta(max_length=256)]
PathText = Annotated[str, Meta(max_length=1024)]


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


class DatastoreKind(StrEnum):
    """Where a datastore's files come from."""

    LOCAL = "local"
    DIRECTORY = "directory"


class Filesystem(StrEnum):
    """File systems that Mica makes for a datastore."""

    XFS = "xfs"
    EXT4 = "ext4"


class DatastoreSpec(WireModel, frozen=True, kw_only=True):
    """What a datastore is wanted to be."""

    kind: DatastoreKind
    disk: Annotated[ShortText | None, Meta(description="`local`: the id of the disk.")] = None
    filesystem: Annotated[
        Filesystem, Meta(description="`local`: what is made where the disk is wiped.")
    ] = Filesystem.XFS
    path: Annotated[
        PathText | None,
        Meta(description="`directory` (hosted mode only): an absolute path."),
    ] = None


class DatastoreBody(WireModel, frozen=True, kw_only=True):
    """A datastore to make, or to take over from a disk that holds one."""

    spec: DatastoreSpec
    wipe_serial: Annotated[
        ShortText | None,
        Meta(
            description="The id of the disk once more: consent to destroy all that it holds.",
        ),
    ] = None


class DatastoreState(StrEnum):
    """Whether a datastore can be used now."""

    AVAILABLE = "available"
    MISSING = "missing"
    FAILED = "failed"


class DatastoreStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of a datastore."""

    state: DatastoreState
    uuid: str | None = None
    reason: Annotated[str | None, Meta(description="Why it can't be used.")] = None
    capacity_bytes: int = 0
    free_bytes: int = 0
    device: str | None = None
    filesystem: str | None = None


class Datastore(WireModel, frozen=True, kw_only=True):
    """A place for virtual machines, volumes and images."""

    id: Slug
    revision: int
    created_at: Timestamp
    spec: DatastoreSpec
    status: DatastoreStatus


class DatastorePage(WireModel, frozen=True, kw_only=True):
    """A part of the datastores."""

    items: tuple[Datastore, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class StoredPageQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of lists of what lies in datastores."""

    datastore: Slug | UnsetType = UNSET


class VolumeFormat(StrEnum):
    """How a volume's data lie in its file."""

    QCOW2 = "qcow2"
    RAW = "raw"


class VolumeSpec(WireModel, frozen=True, kw_only=True):
    """What a volume is wanted to be."""

    datastore: Annotated[Slug, Meta(description="Where it lies; fixed at creation.")]
    size_bytes: Annotated[
        int, Meta(ge=1 << 20, le=MAX_BYTES, multiple_of=512, description="What the guest sees.")
    ]
    format: VolumeFormat = VolumeFormat.QCOW2
    source_image: Annotated[
        Slug | None, Meta(description="Filled from this image at creation.")
    ] = None


class VolumeBody(WireModel, frozen=True, kw_only=True):
    """A volume to make."""

    spec: VolumeSpec


class VolumeStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of a volume."""

    allocated_bytes: int
    attached_to: Annotated[
        str | None, Meta(description="The id of the VM whose spec names the volume.")
    ] = None
    reason: Annotated[str | None, Meta(description="Why the volume can't be used.")] = None


class Volume(WireModel, frozen=True, kw_only=True):
    """A virtual disk."""

    id: Slug
    revision: int
    created_at: Timestamp
    spec: VolumeSpec
    status: VolumeStatus


class VolumePage(WireModel, frozen=True, kw_only=True):
    """A part of the volumes."""

    items: tuple[Volume, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class ImageFormat(StrEnum):
    """What an image is; its header must prove it."""

    ISO = "iso"
    QCOW2 = "qcow2"
    RAW = "raw"
    LINUX_KERNEL = "linux-kernel"
    LINUX_INITRD = "linux-initrd"


class ImageSpec(WireModel, frozen=True, kw_only=True):
    """What an image was declared to be by who uploaded it."""

    datastore: Slug
    format: ImageFormat
    size_bytes: Annotated[int, Meta(ge=1, le=MAX_BYTES)]
    sha256: Sha256Hex


class ImageStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of an image."""

    virtual_size_bytes: Annotated[
        int, Meta(description="The size of the disk in it; the file's size where it is none.")
    ]
    used_by: Annotated[tuple[str, ...], Meta(description="Ids of the VMs that name it.")] = ()
    reason: Annotated[str | None, Meta(description="Why the image can't be used.")] = None


class Image(WireModel, frozen=True, kw_only=True):
    """An ISO, disk template, kernel or initrd."""

    id: Slug
    created_at: Timestamp
    spec: ImageSpec
    status: ImageStatus


class ImagePage(WireModel, frozen=True, kw_only=True):
    """A part of the images."""

    items: tuple[Image, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class UploadQuery(WireModel, frozen=True, kw_only=True):
    """What an upload is declared to be."""

    datastore: Annotated[Slug, Meta(description="Where the image is kept.")]
    format: Annotated[ImageFormat, Meta(description="What it is; its header must prove it.")]
    sha256: Annotated[Sha256Hex, Meta(description="The digest that the data must have.")]
    wait: Annotated[
        float,
        Meta(
            ge=0,
            le=300,
            description="Seconds to wait, after the last byte, for the image to be durable.",
        ),
    ] = 60.0


class VolumePatchQuery(WireModel, frozen=True, kw_only=True):
    """How a volume may be changed."""

    allow_shrink: Annotated[
        bool, Meta(description="Consent to cut off what lies behind the new size.")
    ] = False
    wait: Annotated[
        float, Meta(ge=0, le=300, description="Seconds to wait for the work to finish.")
    ] = 0.0
