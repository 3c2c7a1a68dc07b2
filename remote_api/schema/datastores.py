"""Datastores: places for virtual machines, volumes and images."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from remote_api.schema.base import (
    ObjectBody,
    PageQuery,
    PathText,
    Printable,
    ShortText,
    Slug,
    Timestamp,
    WireEnum,
    WireModel,
)

__all__ = [
    "AddDiskBody",
    "Datastore",
    "DatastoreBody",
    "DatastoreKind",
    "DatastoreMember",
    "DatastorePage",
    "DatastoreSpec",
    "DatastoreState",
    "DatastoreStatus",
    "Filesystem",
    "MemberState",
    "MountQuery",
    "NfsSpec",
    "NfsVersion",
    "RaidLevel",
    "RaidState",
    "RaidStatus",
    "RenameDatastoreBody",
    "ReplaceDiskBody",
    "SpaceLevel",
    "StoredPageQuery",
]


class DatastoreKind(WireEnum):
    """Where a datastore's files come from."""

    LOCAL = "local"
    RAID = "raid"
    LVM = "lvm"
    NFS = "nfs"
    DIRECTORY = "directory"


class Filesystem(WireEnum):
    """File systems that Mica makes for a datastore."""

    XFS = "xfs"
    EXT4 = "ext4"


class RaidLevel(WireEnum):
    """`raid1`: every disk holds everything; `raid10`: striped pairs."""

    RAID1 = "raid1"
    RAID10 = "raid10"


class NfsVersion(WireEnum):
    """The version of the protocol."""

    V3 = "3"
    V4_0 = "4.0"
    V4_1 = "4.1"
    V4_2 = "4.2"


Port = Annotated[int, Meta(ge=1, le=65535)]
Percent = Annotated[int, Meta(ge=1, le=100)]
DiskIds = Annotated[tuple[ShortText, ...], Meta(max_length=64)]


class NfsSpec(WireModel, frozen=True, kw_only=True):
    """A directory that a server exports; the host needs to write there as root."""

    server: Annotated[
        Printable, Meta(min_length=1, max_length=255, description="A name or an address.")
    ]
    export: Annotated[PathText, Meta(min_length=1, description="Its absolute path on the server.")]
    version: Annotated[
        NfsVersion | None,
        Meta(
            description="Only this one; by default the newest that the server speaks, found anew at"
            " each mount (see `status.nfs_version`). Version 3 has no locks on the server."
        ),
    ] = None
    port: Annotated[
        Port | None, Meta(description="2049, or what the server's rpcbind tells (version 3).")
    ] = None
    mount_port: Annotated[
        Port | None,
        Meta(description="Version 3: the port of its mount service; else rpcbind is asked."),
    ] = None


class DatastoreSpec(WireModel, frozen=True, kw_only=True):
    """What a datastore is wanted to be."""

    kind: DatastoreKind
    disk: Annotated[ShortText | None, Meta(description="`local`: the id of the disk.")] = None
    disks: Annotated[DiskIds, Meta(description="`raid` and `lvm`: the ids of the disks.")] = ()
    spares: Annotated[
        tuple[ShortText, ...],
        Meta(max_length=16, description="`raid`: disks that stand in for one that fails."),
    ] = ()
    raid_level: Annotated[RaidLevel, Meta(description="`raid`: what is made.")] = RaidLevel.RAID1
    nfs: NfsSpec | None = None
    filesystem: Annotated[
        Filesystem, Meta(description="`local`, `raid`, `lvm`: what is made on wiped disks.")
    ] = Filesystem.XFS
    path: Annotated[
        PathText | None,
        Meta(description="`directory` (hosted mode only): an absolute path."),
    ] = None
    warning_percent: Annotated[
        Percent, Meta(description="A finding and an event tell when this much is used.")
    ] = 80
    critical_percent: Annotated[Percent, Meta(description="The same, as an error.")] = 95


class DatastoreBody(ObjectBody, frozen=True, kw_only=True):
    """A datastore to make, or to take over from a disk that holds one."""

    spec: DatastoreSpec
    wipe_serials: Annotated[
        DiskIds,
        Meta(
            description="The id of each disk that holds anything, once more: consent to destroy"
            " all that it holds.",
        ),
    ] = ()
    adopt: Annotated[
        bool,
        Meta(description="Take over the datastore that is there; refuse to make one."),
    ] = False
    take_over: Annotated[
        bool,
        Meta(
            description="Take it even from another Mica that holds it and is at work: that one"
            " loses it. One that is silent loses it anyway, after half a minute."
        ),
    ] = False


class DatastoreState(WireEnum):
    """Whether a datastore can be used now."""

    AVAILABLE = "available"
    MISSING = "missing"
    FAILED = "failed"
    UNMOUNTED = "unmounted"


class SpaceLevel(WireEnum):
    """How full a datastore is, by its thresholds."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


class MemberState(WireEnum):
    """What a disk does in its datastore."""

    ACTIVE = "active"
    SPARE = "spare"
    REBUILDING = "rebuilding"
    FAULTY = "faulty"
    MISSING = "missing"


class DatastoreMember(WireModel, frozen=True, kw_only=True):
    """A disk of a datastore."""

    disk: Annotated[str, Meta(description="Its id.")]
    device: str | None = None
    state: MemberState


class RaidState(WireEnum):
    """How a `raid` datastore's redundancy stands."""

    CLEAN = "clean"
    DEGRADED = "degraded"
    REBUILDING = "rebuilding"
    CHECKING = "checking"


class RaidStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of a `raid` datastore's array."""

    level: RaidLevel | None
    state: RaidState
    missing_disks: int = 0
    progress_percent: Annotated[
        float | None, Meta(description="Of the rebuild or check under way.")
    ] = None
    remaining_s: int | None = None


class DatastoreStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of a datastore."""

    state: DatastoreState
    uuid: str | None = None
    reason: Annotated[str | None, Meta(description="Why it can't be used.")] = None
    capacity_bytes: int = 0
    free_bytes: int = 0
    provisioned_bytes: Annotated[
        int, Meta(description="What its volumes come to when they are filled to their sizes.")
    ] = 0
    space: SpaceLevel = SpaceLevel.OK
    device: str | None = None
    filesystem: str | None = None
    nfs_version: Annotated[NfsVersion | None, Meta(description="`nfs`: what is spoken now.")] = None
    members: tuple[DatastoreMember, ...] = ()
    raid: RaidStatus | None = None


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


class MountQuery(WireModel, frozen=True, kw_only=True):
    """How a datastore is mounted."""

    take_over: Annotated[
        bool,
        Meta(description="Take it even from another Mica that holds it: that one loses it."),
    ] = False
    wait: Annotated[
        float, Meta(ge=0, le=300, description="Seconds to wait for the work to finish.")
    ] = 0.0


class RenameDatastoreBody(WireModel, frozen=True, kw_only=True):
    """What a datastore is to be called from now on."""

    id: Slug


class AddDiskBody(WireModel, frozen=True, kw_only=True):
    """A disk to give to a datastore: a spare of `raid`, more space of `lvm`."""

    disk: Annotated[ShortText, Meta(description="Its id.")]
    wipe_serials: Annotated[
        DiskIds, Meta(description="Its id once more, where it holds anything.")
    ] = ()


class ReplaceDiskBody(WireModel, frozen=True, kw_only=True):
    """A disk of a `raid` datastore, and the one that takes its place."""

    old: Annotated[ShortText, Meta(description="The id of the disk that goes; it may be dead.")]
    new: Annotated[ShortText, Meta(description="The id of the disk that comes.")]
    wipe_serials: Annotated[
        DiskIds, Meta(description="The new disk's id once more, where it holds anything.")
    ] = ()
