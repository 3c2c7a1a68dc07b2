"""Snapshots of virtual machines."""

from __future__ import annotations

from typing import ClassVar

from vmkernel.control.requests.base import ListRequest, Request
from vmkernel.model import (
    SNAPSHOT_LISTING,
    Listing,
    Operation,
    Role,
    Slug,
    Snapshot,
    SnapshotSpec,
)

__all__ = [
    "CreateSnapshot",
    "DeleteSnapshot",
    "GetSnapshot",
    "ListSnapshots",
    "RevertToSnapshot",
]


class ListSnapshots(ListRequest, frozen=True, kw_only=True, tag="vm.snapshots"):
    """The snapshots of one VM."""

    LISTING: ClassVar[Listing] = SNAPSHOT_LISTING

    vm: Slug


class GetSnapshot(Request[Snapshot], frozen=True, kw_only=True, tag="vm.snapshot"):
    """One snapshot."""

    READ_ONLY: ClassVar[bool] = True

    vm: Slug
    id: Slug


class CreateSnapshot(Request[Operation], frozen=True, kw_only=True, tag="vm.create-snapshot"):
    """Take a snapshot of a VM."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    vm: Slug
    id: Slug
    spec: SnapshotSpec


class RevertToSnapshot(Request[Operation], frozen=True, kw_only=True, tag="vm.revert"):
    """Revert to a snapshot; later changes that no other snapshot has are lost.

    The VM runs afterwards where `start` says so; where it says nothing, as it ran before, or with
    the memory of then.
    """

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    vm: Slug
    id: Slug
    start: bool | None = None


class DeleteSnapshot(Request[Operation], frozen=True, kw_only=True, tag="vm.delete-snapshot"):
    """Delete a snapshot; later snapshots stay."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    vm: Slug
    id: Slug
