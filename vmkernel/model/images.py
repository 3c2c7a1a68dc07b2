"""Images: ISOs, disk templates, kernels and initrds."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from vmkernel.model.base import Record, Sha256Hex, Slug, Timestamp

__all__ = ["Image", "ImageFormat", "ImageSpec", "ImageStatus"]


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
