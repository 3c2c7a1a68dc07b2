"""Images and volumes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from vmkernel.control.requests.base import Done, ListRequest, Request
from vmkernel.model import (
    IMAGE_LISTING,
    VOLUME_LISTING,
    Allocation,
    CheckRepair,
    Image,
    Listing,
    Operation,
    Role,
    Slug,
    Volume,
    VolumeFormat,
    VolumeSpec,
)

__all__ = [
    "CheckVolume",
    "CreateVolume",
    "DeleteImage",
    "DeleteVolume",
    "FlattenVolume",
    "GetImage",
    "GetVolume",
    "KeepVolume",
    "ListImages",
    "ListVolumes",
    "MoveVolume",
    "ResizeVolume",
]


class ListImages(ListRequest, frozen=True, kw_only=True, tag="storage.images"):
    """All images."""

    LISTING: ClassVar[Listing] = IMAGE_LISTING


class GetImage(Request[Image], frozen=True, kw_only=True, tag="storage.image"):
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class DeleteImage(Request[Done], frozen=True, kw_only=True, tag="storage.delete-image"):
    """Delete an image that no VM uses."""

    DRY_RUN: ClassVar[bool] = True
    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug


class ListVolumes(ListRequest, frozen=True, kw_only=True, tag="storage.volumes"):
    """All volumes."""

    LISTING: ClassVar[Listing] = VOLUME_LISTING


class GetVolume(Request[Volume], frozen=True, kw_only=True, tag="storage.volume"):
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class CreateVolume(Request[Operation], frozen=True, kw_only=True, tag="storage.create-volume"):
    """Make a volume, empty or filled from an image."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    spec: VolumeSpec


class KeepVolume(Request[Operation], frozen=True, kw_only=True, tag="storage.keep-volume"):
    """Keep volumes that would be deleted unless a VM names them."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    together_with: Annotated[tuple[Slug, ...], Meta(max_length=63)] = ()


class ResizeVolume(Request[Operation], frozen=True, kw_only=True, tag="storage.resize-volume"):
    """Grow a volume, also while its VM runs; shrinking needs `allow_shrink` and no running VM."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    size_bytes: int
    revision: int | None = None
    allow_shrink: bool = False


class MoveVolume(Request[Operation], frozen=True, kw_only=True, tag="storage.move-volume"):
    """Move a volume to another datastore, format or allocation; also while its VM runs."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    datastore: Slug
    format: VolumeFormat
    allocation: Allocation
    revision: int | None = None


class FlattenVolume(Request[Operation], frozen=True, kw_only=True, tag="storage.flatten-volume"):
    """Make a linked volume independent of its backing; also while its VM runs."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug


class CheckVolume(Request[Operation], frozen=True, kw_only=True, tag="storage.check-volume"):
    """Check the file of a volume that no running VM uses."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    repair: CheckRepair = CheckRepair.NONE


class DeleteVolume(Request[Done], frozen=True, kw_only=True, tag="storage.delete-volume"):
    """Delete a volume that no VM names."""

    DRY_RUN: ClassVar[bool] = True
    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    revision: int | None = None
