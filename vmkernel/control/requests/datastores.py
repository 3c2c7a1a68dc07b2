"""Disks of the host and datastores."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from vmkernel.control.requests.base import ListRequest, Request
from vmkernel.model import (
    DATASTORE_LISTING,
    DISK_LISTING,
    Datastore,
    DatastoreSpec,
    Listing,
    Operation,
    Role,
    Slug,
)
from vmkernel.model.base import ShortText

__all__ = [
    "AddDatastoreDisk",
    "CreateDatastore",
    "DeleteDatastore",
    "GetDatastore",
    "GrowDatastore",
    "ListDatastores",
    "ListDisks",
    "MountDatastore",
    "RenameDatastore",
    "ReplaceDatastoreDisk",
    "UnmountDatastore",
    "UpdateDatastore",
    "WipeDisk",
]

WipeSerials = Annotated[tuple[ShortText, ...], msgspec.Meta(max_length=64)]


class ListDisks(ListRequest, frozen=True, kw_only=True, tag="host.disks"):
    """The host's disks and what they hold."""

    LISTING: ClassVar[Listing] = DISK_LISTING


class ListDatastores(ListRequest, frozen=True, kw_only=True, tag="storage.datastores"):
    """All datastores."""

    LISTING: ClassVar[Listing] = DATASTORE_LISTING


class GetDatastore(Request[Datastore], frozen=True, kw_only=True, tag="storage.datastore"):
    """One datastore."""

    READ_ONLY: ClassVar[bool] = True

    id: Slug


class CreateDatastore(
    Request[Operation], frozen=True, kw_only=True, tag="storage.create-datastore"
):
    """Make a datastore, or adopt an existing one.

    A disk that holds anything else is wiped only if `wipe_serials` names its id. With `adopt`, none
    is made.
    """

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
    spec: DatastoreSpec
    wipe_serials: WipeSerials = ()
    adopt: bool = False
    take_over: bool = False
    """Adopt it even if another host holds its lease."""


class DeleteDatastore(Request[Operation], frozen=True, kw_only=True, tag="storage.rm-datastore"):
    """Remove a datastore from this host; its data stay on its disks."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug


class UpdateDatastore(
    Request[Datastore], frozen=True, kw_only=True, tag="storage.update-datastore"
):
    """Change the thresholds of a datastore; everything else is fixed or has its own request."""

    DRY_RUN: ClassVar[bool] = True
    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
    warning_percent: int
    critical_percent: int
    revision: int | None = None


class RenameDatastore(
    Request[Operation], frozen=True, kw_only=True, tag="storage.rename-datastore"
):
    """Rename a datastore on this host; no VM on it may be running."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
    new_id: Slug


class MountDatastore(Request[Operation], frozen=True, kw_only=True, tag="storage.mount-datastore"):
    """Mount a datastore that is unmounted, or that another host uses."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
    take_over: bool = False
    """Mount it even if another host is using it."""


class UnmountDatastore(
    Request[Operation], frozen=True, kw_only=True, tag="storage.unmount-datastore"
):
    """Unmount a datastore and keep it so; no VM on it may be running."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug


class GrowDatastore(Request[Operation], frozen=True, kw_only=True, tag="storage.grow-datastore"):
    """Use the space that its disks have gained."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug


class AddDatastoreDisk(Request[Operation], frozen=True, kw_only=True, tag="storage.add-disk"):
    """Add a disk to a datastore: a spare for `raid`, space for `lvm`."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
    disk: ShortText
    wipe_serials: WipeSerials = ()


class ReplaceDatastoreDisk(
    Request[Operation], frozen=True, kw_only=True, tag="storage.replace-disk"
):
    """Replace a disk of a `raid` datastore; the reply comes when the rebuild has begun."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
    old: ShortText
    new: ShortText
    wipe_serials: WipeSerials = ()


class WipeDisk(Request[Operation], frozen=True, kw_only=True, tag="host.wipe-disk"):
    """Destroy all data on a disk; `wipe_serial` must equal its id."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    disk: ShortText
    wipe_serial: ShortText
