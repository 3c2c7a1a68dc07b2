"""Datastores: places for virtual machines, volumes and images."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from vmkernel.model.base import Record, Slug, Timestamp

__all__ = [
    "Datastore",
    "DatastoreKind",
    "DatastoreSpec",
    "DatastoreState",
    "DatastoreStatus",
    "Filesystem",
]


class DatastoreKind(StrEnum):
    """Where a datastore's files come from."""

    LOCAL = "local"
    DIRECTORY = "directory"


class Filesystem(StrEnum):
    """File systems that Mica makes for a datastore."""

    XFS = "xfs"
    EXT4 = "ext4"


class DatastoreSpec(Record, frozen=True, kw_only=True):
    """What a datastore is wanted to be."""

    kind: DatastoreKind
    disk: str | None = None
    """`local`: the id of the disk (see Disk.id)."""
    filesystem: Filesystem = Filesystem.XFS
    """`local`: what is made when the disk is wiped."""
    path: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    """`directory` (hosted mode only): an absolute path."""


class DatastoreState(StrEnum):
    """Whether a datastore can be used now."""

    AVAILABLE = "available"
    MISSING = "missing"
    FAILED = "failed"


class DatastoreStatus(Record, frozen=True, kw_only=True):
    """What is observed of a datastore."""

    state: DatastoreState
    uuid: str | None = None
    reason: str | None = None
    capacity_bytes: int = 0
    free_bytes: int = 0
    device: str | None = None
    filesystem: str | None = None


class Datastore(Record, frozen=True, kw_only=True):
    """A place for virtual machines, volumes and images."""

    id: Slug
    revision: int
    created_at: Timestamp
    spec: DatastoreSpec
    status: DatastoreStatus
