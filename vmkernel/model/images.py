"""Images: ISOs, disk templates, kernels and initrds; what they are made from, and how they come."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, Record, Sha256Hex, Slug, Timestamp
from vmkernel.model.listing import Column, Listing
from vmkernel.model.problems import ErrorInfo
from vmkernel.text import PRINTABLE, PRINTABLE_LINES

__all__ = [
    "Compression",
    "DataExtent",
    "DataMap",
    "IMAGE_LISTING",
    "Image",
    "ImageCapture",
    "ImageFormat",
    "ImageOrigin",
    "ImagePull",
    "ImageSource",
    "ImageSpec",
    "ImageStatus",
    "SourceFormat",
    "StoredData",
    "UPLOAD_LISTING",
    "Upload",
    "UploadChecksum",
    "UploadOutcome",
    "UploadSpec",
    "UploadState",
    "UploadStatus",
]

MAX_IMAGE_BYTES = 1 << 50
ImageBytes = Annotated[int, msgspec.Meta(ge=1, le=MAX_IMAGE_BYTES)]


class ImageFormat(OpenEnum):
    """How an image is kept; its header must prove it."""

    ISO = "iso"
    QCOW2 = "qcow2"
    RAW = "raw"
    LINUX_KERNEL = "linux-kernel"
    LINUX_INITRD = "linux-initrd"


class SourceFormat(OpenEnum):
    """What an image may be made from. What isn't an ImageFormat is converted to qcow2."""

    ISO = "iso"
    QCOW2 = "qcow2"
    RAW = "raw"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"
    VDI = "vdi"
    PARALLELS = "parallels"
    LINUX_KERNEL = "linux-kernel"
    LINUX_INITRD = "linux-initrd"

    @property
    def kept_as(self) -> ImageFormat:
        """The format of the image that comes out of it."""
        try:
            return ImageFormat(self.value)
        except ValueError:
            return ImageFormat.QCOW2

    @property
    def converted(self) -> bool:
        """True if qemu-img makes the image; False if it is kept as it came."""
        return self.value not in ImageFormat._value2member_map_


class Compression(OpenEnum):
    """How data are compressed on their way to the host."""

    NONE = "none"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"
    BZIP2 = "bzip2"


class ImageSource(Record, frozen=True, kw_only=True):
    """The data of a new image as they are sent, compressed or not."""

    datastore: Slug
    size_bytes: ImageBytes
    sha256: Sha256Hex | None = None
    """Of the data as they are sent; checked if given."""
    format: SourceFormat | None = None
    """Null: taken from the header, which is checked in any case."""
    compression: Compression | None = None
    """Null: taken from the header."""


class ImagePull(Record, frozen=True, kw_only=True):
    """An image that the host fetches itself."""

    datastore: Slug
    """Where the image is kept."""
    url: Annotated[
        str,
        msgspec.Meta(
            min_length=8,
            max_length=2048,
            pattern=PRINTABLE,
            examples=["https://example.org/debian-13.qcow2"],
        ),
    ]
    """`http://` or `https://`, without credentials. Addresses of this host itself and of a single
    link are refused; at most five redirects are followed."""
    sha256: Sha256Hex
    """The digest that the file must have."""
    format: SourceFormat | None = None
    """What it is, unpacked; null: taken from the header."""
    compression: Compression | None = None
    """How it is compressed; null: taken from the header."""
    max_bytes: ImageBytes | None = None
    """Larger files are refused; null: what fits on the datastore."""
    ca_pem: Annotated[str, msgspec.Meta(max_length=65536, pattern=PRINTABLE_LINES)] | None = None
    """Certificates to trust instead of the public authorities (PEM)."""


class ImageCapture(Record, frozen=True, kw_only=True):
    """An image that is made of a volume that no running VM has."""

    volume: Slug
    datastore: Slug | None = None
    """Null: the volume's."""
    format: ImageFormat = ImageFormat.QCOW2
    """`qcow2` or `raw`."""
    compress: bool = False
    """qcow2: compress the clusters."""


class ImageSpec(Record, frozen=True, kw_only=True):
    """What an image is, as it is kept."""

    datastore: Slug
    format: ImageFormat
    size_bytes: ImageBytes
    sha256: Sha256Hex


class ImageOrigin(Record, frozen=True, kw_only=True):
    """Where an image came from."""

    format: SourceFormat
    compression: Compression
    size_bytes: int
    """Of the data as they came."""
    sha256: Sha256Hex | None = None
    """Of the data as they came."""
    url: str | None = None
    """Where it was pulled from, after redirects."""
    volume: str | None = None
    """The volume that it was made of."""


class ImageStatus(Record, frozen=True, kw_only=True):
    """What is observed of an image."""

    virtual_size_bytes: int
    """The size of the disk in it; the file's size if it is none."""
    used_by: tuple[str, ...] = ()
    """Ids of the VMs that name it."""
    origin: ImageOrigin | None = None
    """Where it came from."""
    reason: str | None = None
    """Why the image can't be used."""


class Image(Record, frozen=True, kw_only=True):
    """An ISO, disk template, kernel or initrd."""

    id: Slug
    created_at: Timestamp
    spec: ImageSpec
    status: ImageStatus


class StoredData(Record, frozen=True, kw_only=True):
    """The file of an image or a volume, as it is downloaded."""

    size_bytes: int
    etag: str
    """Changes with the data."""
    format: ImageFormat | None = None


class DataExtent(Record, frozen=True, kw_only=True):
    """A piece of a file that holds data."""

    offset: int
    length_bytes: int


class DataMap(Record, frozen=True, kw_only=True):
    """Where the data of a file are; everything else of it reads as zeros."""

    size_bytes: int
    etag: str
    """That of the download, without its quotation marks."""
    extents: tuple[DataExtent, ...]
    """In order; a part of them, if there is a `next_offset`."""
    next_offset: int | None = None
    """The `offset` of the next part; null at the end."""


class UploadSpec(ImageSource, frozen=True, kw_only=True):
    """A resumable upload: what comes, and what it becomes."""

    image: Slug


class UploadState(OpenEnum):
    """The state of a resumable upload."""

    RECEIVING = "receiving"
    IMPORTING = "importing"
    """All bytes are here; `operation` makes the image of them."""


class UploadStatus(Record, frozen=True, kw_only=True):
    """What is observed of a resumable upload."""

    state: UploadState
    offset_bytes: int
    """The number of bytes that are stored durably."""
    expires_at: Timestamp
    operation: str | None = None
    """What makes the image of it."""


class Upload(Record, frozen=True, kw_only=True):
    """A resumable upload, until its image is there."""

    id: Slug
    created_at: Timestamp
    spec: UploadSpec
    status: UploadStatus


class UploadChecksum(Record, frozen=True, kw_only=True):
    """The digest of one part of an upload."""

    algorithm: Annotated[str, msgspec.Meta(pattern=r"^(sha1|sha256|sha512)$(?!\n)")]
    digest: Annotated[bytes, msgspec.Meta(max_length=64)]


class UploadOutcome(Record, frozen=True, kw_only=True):
    """What became of one part of an upload."""

    offset_bytes: int
    """So many bytes of the whole are durable now."""
    checksum_matches: bool = True
    """False: the part was dropped."""
    operation: str | None = None
    """What makes the image, where the upload is whole now."""
    problem: ErrorInfo | None = None
    """Why not all of it was taken."""


IMAGE_LISTING = Listing(
    item=Image,
    filters={
        "id": Column("id"),
        "datastore": Column("spec.datastore"),
        "format": Column("spec.format"),
        "sha256": Column("spec.sha256"),
        "used_by": Column("status.used_by", text="A VM that names it; empty for what none uses."),
    },
    sort={
        "id": Column("id"),
        "datastore": Column("spec.datastore"),
        "format": Column("spec.format"),
        "created_at": Column("created_at"),
        "size_bytes": Column("spec.size_bytes"),
    },
    summary=(
        *("created_at", "spec.datastore", "spec.format", "spec.size_bytes"),
        *("status.virtual_size_bytes", "status.reason"),
    ),
)

UPLOAD_LISTING = Listing(
    item=Upload,
    filters={
        "id": Column("id"),
        "state": Column("status.state"),
        "image": Column("spec.image"),
        "datastore": Column("spec.datastore"),
    },
    sort={
        "id": Column("id"),
        "image": Column("spec.image"),
        "created_at": Column("created_at"),
        "expires_at": Column("status.expires_at"),
        "size_bytes": Column("spec.size_bytes"),
    },
    summary=(
        *("created_at", "spec.image", "spec.datastore", "spec.size_bytes"),
        *("status.state", "status.offset_bytes"),
    ),
)
