"""Volumes: virtual disks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from vmkernel.model.base import Record, Slug, Timestamp

__all__ = ["Volume", "VolumeFormat", "VolumeSpec", "VolumeStatus"]


SECTOR_BYTES = 512


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
