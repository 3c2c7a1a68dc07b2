"""Datastores: places for virtual machines, volumes and images."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import ObjectBody
from vmkernel.model import (
    DatastoreSpec,
    Record,
    ShortText,
    Slug,
)

__all__ = [
    "AddDiskBody",
    "DatastoreBody",
    "MountQuery",
    "RenameDatastoreBody",
    "ReplaceDiskBody",
]


Port = Annotated[int, Meta(ge=1, le=65535)]
Percent = Annotated[int, Meta(ge=1, le=100)]
DiskIds = Annotated[tuple[ShortText, ...], Meta(max_length=64)]


class DatastoreBody(ObjectBody, frozen=True, kw_only=True):
    """A datastore to make, or to take over from a disk that holds one."""

    spec: DatastoreSpec
    wipe_serials: DiskIds = ()
    """The IDs of all disks that hold anything, as consent to destroy all data on them."""
    adopt: bool = False
    """Take over the datastore that is there; refuse to make one."""
    take_over: bool = False
    """Take it even from another Mica that is using it: that one loses it. One that is
    silent loses it anyway, after half a minute."""


class MountQuery(Record, frozen=True, kw_only=True):
    """How a datastore is mounted."""

    take_over: bool = False
    """Take it even if another host uses it: that host loses access."""
    wait: Annotated[float, Meta(ge=0, le=300)] = 0.0
    """Seconds to wait for the work to finish."""


class RenameDatastoreBody(Record, frozen=True, kw_only=True):
    """The new name of a datastore."""

    id: Slug


class AddDiskBody(Record, frozen=True, kw_only=True):
    """A disk to give to a datastore: a spare of `raid`, more space of `lvm`."""

    disk: ShortText
    """The ID of the disk."""
    wipe_serials: DiskIds = ()
    """The ID again, if the disk is not blank: consent to destroy all data on it."""


class ReplaceDiskBody(Record, frozen=True, kw_only=True):
    """A disk of a `raid` datastore, and the one that takes its place."""

    old: ShortText
    """The id of the disk that goes; it may be dead."""
    new: ShortText
    """The ID of the new disk."""
    wipe_serials: DiskIds = ()
    """The new disk's ID again, if it is not blank: consent to destroy all data on it."""
