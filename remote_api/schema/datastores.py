"""Datastores: places for virtual machines, volumes and images."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from remote_api.schema.base import PageQuery, Slug, Timestamp, WireModel

__all__ = [
    "Datastore",
    "DatastoreBody",
    "DatastoreKind",
    "DatastorePage",
    "DatastoreSpec",
    "DatastoreState",
    "DatastoreStatus",
    "Filesystem",
    "StoredPageQuery",
]


ShortText = Annotated[str, Meta(max_length=256)]
PathText = Annotated[str, Meta(max_length=1024)]


class DatastoreKind(StrEnum):
    """Where a datastore's files come from."""

    LOCAL = "local"
    DIRECTORY = "directory"


class Filesystem(StrEnum):
    """File systems that Mica makes for a datastore."""

    XFS = "xfs"
    EXT4 = "ext4"


class DatastoreSpec(WireModel, frozen=True, kw_only=True):
    """What a datastore is wanted to be."""

    kind: DatastoreKind
    disk: Annotated[ShortText | None, Meta(description="`local`: the id of the disk.")] = None
    filesystem: Annotated[
        Filesystem, Meta(description="`local`: what is made where the disk is wiped.")
    ] = Filesystem.XFS
    path: Annotated[
        PathText | None,
        Meta(description="`directory` (hosted mode only): an absolute path."),
    ] = None


class DatastoreBody(WireModel, frozen=True, kw_only=True):
    """A datastore to make, or to take over from a disk that holds one."""

    spec: DatastoreSpec
    wipe_serial: Annotated[
        ShortText | None,
        Meta(
            description="The id of the disk once more: consent to destroy all that it holds.",
        ),
    ] = None


class DatastoreState(StrEnum):
    """Whether a datastore can be used now."""

    AVAILABLE = "available"
    MISSING = "missing"
    FAILED = "failed"


class DatastoreStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of a datastore."""

    state: DatastoreState
    uuid: str | None = None
    reason: Annotated[str | None, Meta(description="Why it can't be used.")] = None
    capacity_bytes: int = 0
    free_bytes: int = 0
    device: str | None = None
    filesystem: str | None = None


class Datastore(WireModel, frozen=True, kw_only=True):
    """A place for virtual machines, volumes and images."""

    id: Slug
    revision: int
    created_at: Timestamp
    spec: DatastoreSpec
    status: DatastoreStatus


class DatastorePage(WireModel, frozen=True, kw_only=True):
    """A part of the datastores."""

    items: tuple[Datastore, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class StoredPageQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of lists of what lies in datastores."""

    datastore: Slug | UnsetType = UNSET
