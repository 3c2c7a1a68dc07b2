"""Uploads, pulls, captures and downloads of images (lists are in storage.py)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from vmkernel.control.requests.base import Done, ListRequest, Request
from vmkernel.model import (
    UPLOAD_LISTING,
    DataMap,
    ImageCapture,
    ImagePull,
    ImageSource,
    Listing,
    Operation,
    Role,
    Slug,
    StoredData,
    Upload,
    UploadChecksum,
    UploadSpec,
)

__all__ = [
    "CaptureImage",
    "CreateUpload",
    "DeleteUpload",
    "GetImageMap",
    "GetUpload",
    "GetVolumeData",
    "GetVolumeMap",
    "ListUploads",
    "PullImage",
    "ReadImage",
    "ReadVolume",
    "UploadImage",
    "WriteUpload",
]

Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]


class UploadImage(Request[Operation], frozen=True, kw_only=True, tag="storage.upload-image"):
    """Import a new image from a stream.

    Sizes, names and free space are checked before the reply. The stream takes exactly
    `spec.size_bytes` bytes and is then shut down for writing; the operation succeeds once length,
    digest and header are verified and the image is durable. After a failure nothing is left.
    """

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    STREAM: ClassVar[bool] = True

    id: Slug
    spec: ImageSource


class PullImage(Request[Operation], frozen=True, kw_only=True, tag="storage.pull-image"):
    """Download a new image from an HTTP or HTTPS server."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    spec: ImagePull


class CaptureImage(Request[Operation], frozen=True, kw_only=True, tag="storage.capture-image"):
    """Make a new image from a volume that no running VM uses."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    spec: ImageCapture


class ReadImage(Request[StoredData], frozen=True, kw_only=True, tag="storage.read-image"):
    """A part of an image's file as a stream."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    STREAM: ClassVar[bool] = True
    READ_ONLY: ClassVar[bool] = True
    DISCLOSES: ClassVar[bool] = True

    id: Slug
    offset: Bytes
    length: Bytes


class GetVolumeData(Request[StoredData], frozen=True, kw_only=True, tag="storage.volume-data"):
    """The file of a volume that no running VM uses."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class GetImageMap(Request[DataMap], frozen=True, kw_only=True, tag="storage.map-image"):
    """Which parts of an image's file hold data, from an offset on."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    READ_ONLY: ClassVar[bool] = True

    id: Slug
    offset: Bytes = 0


class GetVolumeMap(Request[DataMap], frozen=True, kw_only=True, tag="storage.map-volume"):
    """Which parts of the file of a volume that no running VM uses hold data."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    READ_ONLY: ClassVar[bool] = True

    id: Slug
    offset: Bytes = 0


class ReadVolume(Request[StoredData], frozen=True, kw_only=True, tag="storage.read-volume"):
    """A part of a volume's file as a stream; the volume can't be opened until it ends."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    STREAM: ClassVar[bool] = True
    READ_ONLY: ClassVar[bool] = True
    DISCLOSES: ClassVar[bool] = True

    id: Slug
    offset: Bytes
    length: Bytes


class ListUploads(ListRequest, frozen=True, kw_only=True, tag="storage.uploads"):
    """The resumable uploads."""

    LISTING: ClassVar[Listing] = UPLOAD_LISTING

    ROLE: ClassVar[Role | None] = Role.OPERATOR


class GetUpload(Request[Upload], frozen=True, kw_only=True, tag="storage.upload"):
    """One resumable upload; its offset is durable."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class CreateUpload(Request[Upload], frozen=True, kw_only=True, tag="storage.create-upload"):
    """Begin a resumable upload and reserve its space."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    spec: UploadSpec


class WriteUpload(Request[Upload], frozen=True, kw_only=True, tag="storage.write-upload"):
    """Send a part of an upload.

    The sender writes the part into the stream, shuts it down for writing, and reads an
    UploadOutcome as JSON to the stream's end. If the stream is closed early, what has arrived is
    kept, unless the part has a checksum.
    """

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    STREAM: ClassVar[bool] = True
    IN_PARTS: ClassVar[bool] = True

    id: Slug
    offset: Bytes
    length: Bytes | None = None
    checksum: UploadChecksum | None = None


class DeleteUpload(Request[Done], frozen=True, kw_only=True, tag="storage.delete-upload"):
    """Cancel a resumable upload."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
