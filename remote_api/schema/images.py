"""Images: ISOs, disk images, kernels and initrds; how they are made and imported."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from vmkernel.model import (
    Compression,
    ImageCapture,
    ImagePull,
    Record,
    Sha256Hex,
    Slug,
    SourceFormat,
)

__all__ = ["CaptureBody", "DataMapQuery", "PullBody", "UploadQuery"]


class UploadQuery(Record, frozen=True, kw_only=True):
    """What an upload is declared to be."""

    datastore: Slug
    """The datastore to store the image in."""
    sha256: Sha256Hex
    """The digest of the data as they are sent."""
    format: SourceFormat | UnsetType = UNSET
    """The format after decompression; detected from the header if omitted."""
    compression: Compression | UnsetType = UNSET
    """How it is compressed; taken from the header if omitted."""
    wait: Annotated[float, Meta(ge=0, le=300)] = 60.0
    """Seconds to wait, after the last byte, for the image to be durable."""


class PullBody(Record, frozen=True, kw_only=True):
    """An image to download."""

    spec: ImagePull


class CaptureBody(Record, frozen=True, kw_only=True):
    """A volume to make an image of."""

    spec: ImageCapture


class DataMapQuery(Record, frozen=True, kw_only=True):
    """Where the map begins."""

    offset: Annotated[int, Meta(ge=0, le=1 << 50)] = 0
