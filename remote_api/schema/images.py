"""Images: ISOs, disk templates, kernels and initrds; what they are made from, and how they come."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from remote_api.schema.base import Sha256Hex, Slug, Timestamp, WireEnum, WireModel
from vmkernel.text import PRINTABLE, PRINTABLE_LINES

__all__ = [
    "CaptureBody",
    "Compression",
    "DataExtent",
    "DataMap",
    "DataMapQuery",
    "Image",
    "ImageCapture",
    "ImageFormat",
    "ImageOrigin",
    "ImagePage",
    "ImagePull",
    "ImageSpec",
    "ImageStatus",
    "PullBody",
    "SourceFormat",
    "Upload",
    "UploadPage",
    "UploadQuery",
    "UploadSpec",
    "UploadState",
    "UploadStatus",
]


MAX_BYTES = 1 << 50
ImageBytes = Annotated[int, Meta(ge=1, le=MAX_BYTES)]


class ImageFormat(WireEnum):
    """How an image is kept; its header must prove it."""

    ISO = "iso"
    QCOW2 = "qcow2"
    RAW = "raw"
    LINUX_KERNEL = "linux-kernel"
    LINUX_INITRD = "linux-initrd"


class SourceFormat(WireEnum):
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


class Compression(WireEnum):
    """How data are compressed on their way to the host."""

    NONE = "none"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"


class ImageSpec(WireModel, frozen=True, kw_only=True):
    """What an image is, as it is kept."""

    datastore: Slug
    format: ImageFormat
    size_bytes: ImageBytes
    sha256: Sha256Hex


class ImageOrigin(WireModel, frozen=True, kw_only=True):
    """Where an image came from."""

    format: SourceFormat
    compression: Compression
    size_bytes: Annotated[int, Meta(description="Of the data as they came.")]
    sha256: Annotated[Sha256Hex | None, Meta(description="Of the data as they came.")] = None
    url: Annotated[str | None, Meta(description="Where it was pulled from, after redirects.")] = (
        None
    )
    volume: Annotated[str | None, Meta(description="The volume that it was made of.")] = None


class ImageStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of an image."""

    virtual_size_bytes: Annotated[
        int, Meta(description="The size of the disk in it; the file's size where it is none.")
    ]
    used_by: Annotated[tuple[str, ...], Meta(description="Ids of the VMs that name it.")] = ()
    origin: Annotated[ImageOrigin | None, Meta(description="Where it came from.")] = None
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
    sha256: Annotated[Sha256Hex, Meta(description="The digest of the data as they are sent.")]
    format: Annotated[
        SourceFormat | UnsetType,
        Meta(description="What it is, unpacked; the header tells it where it is left out."),
    ] = UNSET
    compression: Annotated[
        Compression | UnsetType,
        Meta(description="How it is compressed; the header tells it where it is left out."),
    ] = UNSET
    wait: Annotated[
        float,
        Meta(
            ge=0,
            le=300,
            description="Seconds to wait, after the last byte, for the image to be durable.",
        ),
    ] = 60.0


class ImagePull(WireModel, frozen=True, kw_only=True):
    """An image that the host fetches itself."""

    datastore: Annotated[Slug, Meta(description="Where the image is kept.")]
    url: Annotated[
        str,
        Meta(
            min_length=8,
            max_length=2048,
            pattern=PRINTABLE,
            description=(
                "`http://` or `https://`, without credentials. Addresses of this host itself and"
                " of a single link are refused; at most five redirects are followed."
            ),
            examples=["https://example.org/debian-13.qcow2"],
        ),
    ]
    sha256: Annotated[Sha256Hex, Meta(description="The digest that the file must have.")]
    format: Annotated[
        SourceFormat | None, Meta(description="What it is, unpacked; null: the header tells.")
    ] = None
    compression: Annotated[
        Compression | None, Meta(description="How it is compressed; null: the header tells.")
    ] = None
    max_bytes: Annotated[
        ImageBytes | None,
        Meta(description="Larger files are refused; null: what fits on the datastore."),
    ] = None
    ca_pem: (
        Annotated[
            str,
            Meta(
                max_length=65536,
                pattern=PRINTABLE_LINES,
                description="Certificates to trust instead of the public authorities (PEM).",
            ),
        ]
        | None
    ) = None


class PullBody(WireModel, frozen=True, kw_only=True):
    """An image to fetch."""

    spec: ImagePull


class ImageCapture(WireModel, frozen=True, kw_only=True):
    """An image that is made of a volume that no running VM has."""

    volume: Slug
    datastore: Annotated[Slug | None, Meta(description="Null: the volume's.")] = None
    format: Annotated[ImageFormat, Meta(description="`qcow2` or `raw`.")] = ImageFormat.QCOW2
    compress: Annotated[bool, Meta(description="qcow2: compress the clusters.")] = False


class CaptureBody(WireModel, frozen=True, kw_only=True):
    """A volume to make an image of."""

    spec: ImageCapture


class DataExtent(WireModel, frozen=True, kw_only=True):
    """A piece of a file that holds data."""

    offset: int
    length_bytes: int


class DataMap(WireModel, frozen=True, kw_only=True):
    """Where the data of a file are; everything else of it reads as zeros."""

    size_bytes: int
    etag: Annotated[str, Meta(description="That of the download, without its quotation marks.")]
    extents: Annotated[
        tuple[DataExtent, ...],
        Meta(description="In order; a part of them, if there is a `next_offset`."),
    ]
    next_offset: Annotated[
        int | None, Meta(description="The `offset` to go on from; null at the end.")
    ] = None


class DataMapQuery(WireModel, frozen=True, kw_only=True):
    """Where to begin."""

    offset: Annotated[int, Meta(ge=0, le=1 << 50)] = 0


class UploadSpec(WireModel, frozen=True, kw_only=True):
    """A resumable upload: what comes, and what it becomes."""

    image: Slug
    datastore: Slug
    size_bytes: ImageBytes
    sha256: Annotated[Sha256Hex | None, Meta(description="Of the data as they are sent.")] = None
    format: SourceFormat | None = None
    compression: Compression | None = None


class UploadState(WireEnum):
    """Where a resumable upload stands."""

    RECEIVING = "receiving"
    IMPORTING = "importing"


class UploadStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of a resumable upload."""

    state: UploadState
    offset_bytes: Annotated[int, Meta(description="So many bytes are durable.")]
    expires_at: Timestamp
    operation: Annotated[str | None, Meta(description="What makes the image of it.")] = None


class Upload(WireModel, frozen=True, kw_only=True):
    """A resumable upload, until its image is there."""

    id: Slug
    created_at: Timestamp
    spec: UploadSpec
    status: UploadStatus


class UploadPage(WireModel, frozen=True, kw_only=True):
    """A part of the resumable uploads."""

    items: tuple[Upload, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]
