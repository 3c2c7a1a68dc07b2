"""Images: ISOs, disk templates, kernels and initrds."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Sha256Hex, Slug, Timestamp, WireModel

__all__ = ["Image", "ImageFormat", "ImagePage", "ImageSpec", "ImageStatus", "UploadQuery"]


MAX_BYTES = 1 << 50


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
