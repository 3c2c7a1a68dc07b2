"""Images: ISOs, disk images, kernels and initrds; how they are made and imported."""

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
    """The format in which an image is stored; it is verified against the file's header."""

    ISO = "iso"
    QCOW2 = "qcow2"
    RAW = "raw"
    LINUX_KERNEL = "linux-kernel"
    LINUX_INITRD = "linux-initrd"


class SourceFormat(OpenEnum):
    """The format of the source of an image. What isn't an ImageFormat is converted to qcow2."""

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
        """The format of the image made from it."""
        try:
            return ImageFormat(self.value)
        except ValueError:
            return ImageFormat.QCOW2

    @property
    def converted(self) -> bool:
        """True if qemu-img makes the image; False if the file is stored unchanged."""
        return self.value not in ImageFormat._value2member_map_


class Compression(OpenEnum):
    """How data are compressed for the transfer to the host."""

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
    """The SHA-256 of the data as sent; verified if given."""
    format: SourceFormat | None = None
    """Detected from the header if null; the header is verified in any case."""
    compression: Compression | None = None
    """Detected from the header if null."""


class ImagePull(Record, frozen=True, kw_only=True):
    """An image that the host downloads."""

    datastore: Slug
    """The datastore to store the image in."""
    url: Annotated[
        str,
        msgspec.Meta(
            min_length=8,
            max_length=2048,
            pattern=PRINTABLE,
            examples=["https://example.org/debian-13.qcow2"],
        ),
    ]
    """`http://` or `https://`, without credentials. Addresses of this host and link-local addresses
    are refused; at most five redirects are followed."""
    sha256: Sha256Hex
    """The SHA-256 that the file must have."""
    format: SourceFormat | None = None
    """The format after decompression; detected from the header if null."""
    compression: Compression | None = None
    """How the file is compressed; detected from the header if null."""
    max_bytes: ImageBytes | None = None
    """Refuse larger files; if null, the limit is the datastore's free space."""
    ca_pem: Annotated[str, msgspec.Meta(max_length=65536, pattern=PRINTABLE_LINES)] | None = None
    """PEM certificates to trust instead of the public authorities."""


class ImageCapture(Record, frozen=True, kw_only=True):
    """An image made from a volume that no running VM uses."""

    volume: Slug
    datastore: Slug | None = None
    """The volume's datastore if null."""
    format: ImageFormat = ImageFormat.QCOW2
    """`qcow2` or `raw`."""
    compress: bool = False
    """Compress the clusters (qcow2 only)."""


class ImageSpec(Record, frozen=True, kw_only=True):
    """What an image is, as stored."""

    datastore: Slug
    format: ImageFormat
    size_bytes: ImageBytes
    sha256: Sha256Hex


class ImageOrigin(Record, frozen=True, kw_only=True):
    """Where an image came from."""

    format: SourceFormat
    compression: Compression
    size_bytes: int
    """The size of the source data."""
    sha256: Sha256Hex | None = None
    """The SHA-256 of the source data."""
    url: str | None = None
    """The URL that it was downloaded from, after redirects."""
    volume: str | None = None
    """The volume that it was captured from."""


class ImageStatus(Record, frozen=True, kw_only=True):
    """What is observed of an image."""

    virtual_size_bytes: int
    """The size of the virtual disk; the file's size if it isn't a disk image."""
    used_by: tuple[str, ...] = ()
    """IDs of the VMs that use it."""
    origin: ImageOrigin | None = None
    """Where it came from."""
    reason: str | None = None
    """Why the image can't be used."""


class Image(Record, frozen=True, kw_only=True):
    """An ISO, disk image, kernel or initrd."""

    id: Slug
    created_at: Timestamp
    spec: ImageSpec
    status: ImageStatus


class StoredData(Record, frozen=True, kw_only=True):
    """The file of an image or a volume, as downloaded."""

    size_bytes: int
    etag: str
    """Changes with the data."""
    format: ImageFormat | None = None


class DataExtent(Record, frozen=True, kw_only=True):
    """A piece of a file that holds data."""

    offset: int
    length_bytes: int


class DataMap(Record, frozen=True, kw_only=True):
    """Which parts of a file contain data; the rest reads as zeros."""

    size_bytes: int
    etag: str
    """The ETag of the download, without quotation marks."""
    extents: tuple[DataExtent, ...]
    """In order; only some of them if `next_offset` is set."""
    next_offset: int | None = None
    """The `offset` of the next part; null at the end."""


class UploadSpec(ImageSource, frozen=True, kw_only=True):
    """A resumable upload: what is sent and which image it becomes."""

    image: Slug


class UploadState(OpenEnum):
    """The state of a resumable upload."""

    RECEIVING = "receiving"
    IMPORTING = "importing"
    """All bytes have arrived; `operation` makes the image from them."""


class UploadStatus(Record, frozen=True, kw_only=True):
    """What is observed of a resumable upload."""

    state: UploadState
    offset_bytes: int
    """The number of bytes that are stored durably."""
    expires_at: Timestamp
    operation: str | None = None
    """The operation that makes the image."""


class Upload(Record, frozen=True, kw_only=True):
    """A resumable upload, until its image exists."""

    id: Slug
    created_at: Timestamp
    spec: UploadSpec
    status: UploadStatus


class UploadChecksum(Record, frozen=True, kw_only=True):
    """The digest of one part of an upload."""

    algorithm: Annotated[str, msgspec.Meta(pattern=r"^(sha1|sha256|sha512)$(?!\n)")]
    digest: Annotated[bytes, msgspec.Meta(max_length=64)]


class UploadOutcome(Record, frozen=True, kw_only=True):
    """The result of one part of an upload."""

    offset_bytes: int
    """The number of bytes of the whole upload that are durable."""
    checksum_matches: bool = True
    """False if the part was discarded."""
    operation: str | None = None
    """The operation that makes the image, if the upload is complete."""
    problem: ErrorInfo | None = None
    """Why only part of it was accepted."""


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
