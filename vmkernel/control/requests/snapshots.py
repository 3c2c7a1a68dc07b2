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
    READ_ONLY: ClassVar[bool] = True

    vm: Slug
    id: Slug


class CreateSnapshot(Request[Operation], frozen=True, kw_only=True, tag="vm.create-snapshot"):
    ROLE: ClassVar[Role | None] = Role.OPERATOR

    vm: Slug
    id: Slug
    spec: SnapshotSpec


class RevertToSnapshot(Request[Operation], frozen=True, kw_only=True, tag="vm.revert"):
    """Revert to a snapshot; changes since then that no other snapshot holds are lost.

    `start` says if the VM runs afterwards; if null, it runs if it was running before, or if the
    snapshot has memory.
    """

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    vm: Slug
    id: Slug
    start: bool | None = None


class DeleteSnapshot(Request[Operation], frozen=True, kw_only=True, tag="vm.delete-snapshot"):
    """Delete a snapshot; later snapshots are kept."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    vm: Slug
    id: Slug
