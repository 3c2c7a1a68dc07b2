"""Datastores: places for virtual machines, volumes and images."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, PathText, Printable, Record, ShortText, Slug, Timestamp
from vmkernel.model.listing import Column, Listing

__all__ = [
    "COMMON_FIELDS",
    "DATASTORE_LISTING",
    "Datastore",
    "DatastoreKind",
    "DatastoreMember",
    "DatastoreSpec",
    "DatastoreState",
    "DatastoreStatus",
    "Filesystem",
    "KIND_FIELDS",
    "MemberState",
    "NfsSpec",
    "NfsVersion",
    "RaidLevel",
    "RaidState",
    "RaidStatus",
    "SpaceLevel",
    "kind_with",
]


class DatastoreKind(OpenEnum):
    """Where a datastore's files come from."""

    LOCAL = "local"
    """A whole disk."""
    RAID = "raid"
    """Several disks that mirror each other (md)."""
    LVM = "lvm"
    """Several disks concatenated (a volume group); losing one disk loses all data."""
    NFS = "nfs"
    DIRECTORY = "directory"
    """Hosted mode only."""


COMMON_FIELDS = frozenset({"kind", "warning_percent", "critical_percent"})
"""The fields of a spec that every kind has."""
KIND_FIELDS: Mapping[DatastoreKind, frozenset[str]] = {
    DatastoreKind.LOCAL: frozenset({"disk", "filesystem"}),
    DatastoreKind.RAID: frozenset({"disks", "spares", "raid_level", "filesystem"}),
    DatastoreKind.LVM: frozenset({"disks", "filesystem"}),
    DatastoreKind.NFS: frozenset({"nfs"}),
    DatastoreKind.DIRECTORY: frozenset({"path"}),
}
"""The other fields that each kind has; its driver refuses all that it doesn't have."""


def kind_with(fields: Set[str]) -> DatastoreKind | None:
    """The kind that has these fields and the fewest others; None if there is none."""
    having = [kind for kind, its in KIND_FIELDS.items() if fields <= its]
    return min(having, key=lambda kind: len(KIND_FIELDS[kind]), default=None)


class Filesystem(OpenEnum):
    """File systems that Mica makes for a datastore."""

    XFS = "xfs"
    EXT4 = "ext4"


class RaidLevel(OpenEnum):
    """`raid1`: every disk holds everything; `raid10`: striped pairs."""

    RAID1 = "raid1"
    """Every disk holds everything."""
    RAID10 = "raid10"
    """Striped pairs: half of the space, and the speed of all."""


class NfsVersion(OpenEnum):
    """The version of the protocol."""

    V3 = "3"
    V4_0 = "4.0"
    V4_1 = "4.1"
    V4_2 = "4.2"


Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class NfsSpec(Record, frozen=True, kw_only=True):
    """A directory exported by a server; the host must be able to write there as root."""

    server: Annotated[Printable, msgspec.Meta(min_length=1, max_length=255)]
    """Host name or address."""
    export: Annotated[PathText, msgspec.Meta(min_length=1)]
    """Its absolute path on the server."""
    version: NfsVersion | None = None
    """Use only this version; if null, the newest that the server supports, negotiated at each mount
    (see `status.nfs_version`). Version 3 has no locks on the server."""
    port: Port | None = None
    """TCP port; if null, 2049, or for version 3 what the server's rpcbind reports."""
    mount_port: Port | None = None
    """Version 3: the port of its mount service; if null, rpcbind is asked."""


Percent = Annotated[int, msgspec.Meta(ge=1, le=100)]


class DatastoreSpec(Record, frozen=True, kw_only=True):
    """What a datastore is wanted to be."""

    kind: DatastoreKind
    disk: ShortText | None = None
    """`local`: the ID of the disk."""
    disks: Annotated[tuple[ShortText, ...], msgspec.Meta(max_length=64)] = ()
    """`raid` and `lvm`: the IDs of the disks."""
    spares: Annotated[tuple[ShortText, ...], msgspec.Meta(max_length=16)] = ()
    """`raid`: disks that replace one that fails."""
    raid_level: RaidLevel = RaidLevel.RAID1
    """`raid`: the level of the array."""
    nfs: NfsSpec | None = None
    filesystem: Filesystem = Filesystem.XFS
    """`local`, `raid`, `lvm`: the file system to make on wiped disks."""
    path: PathText | None = None
    """`directory` (hosted mode only): an absolute path."""
    warning_percent: Percent = 80
    """Raise a warning (a finding and an event) when this much of the space is used."""
    critical_percent: Percent = 95
    """Raise an error (a finding and an event) when this much of the space is used."""


class DatastoreState(OpenEnum):
    """Whether a datastore can be used now."""

    AVAILABLE = "available"
    MISSING = "missing"
    FAILED = "failed"
    """It is present but can't be used."""
    UNMOUNTED = "unmounted"
    """It was unmounted by request and stays unmounted."""


class SpaceLevel(OpenEnum):
    """How full a datastore is, by its thresholds."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


class MemberState(OpenEnum):
    """What a disk does in its datastore."""

    ACTIVE = "active"
    SPARE = "spare"
    REBUILDING = "rebuilding"
    FAULTY = "faulty"
    MISSING = "missing"


class DatastoreMember(Record, frozen=True, kw_only=True):
    """A disk of a datastore."""

    disk: str
    """The ID of the disk."""
    device: str | None = None
    state: MemberState


class RaidState(OpenEnum):
    """The state of a `raid` datastore's redundancy."""

    CLEAN = "clean"
    DEGRADED = "degraded"
    """A disk is missing and no rebuild is running."""
    REBUILDING = "rebuilding"
    """Data are being copied to a disk."""
    CHECKING = "checking"
    """All disks are present; their contents are being compared or synchronised."""


class RaidStatus(Record, frozen=True, kw_only=True):
    """What is observed of a `raid` datastore's array."""

    level: RaidLevel | None
    state: RaidState
    missing_disks: int = 0
    progress_percent: float | None = None
    """How much of the running rebuild or check is done."""
    remaining_s: int | None = None
    """Estimated from the present speed."""


class DatastoreStatus(Record, frozen=True, kw_only=True):
    """What is observed of a datastore."""

    state: DatastoreState
    uuid: str | None = None
    reason: str | None = None
    """Why it can't be used."""
    capacity_bytes: int = 0
    free_bytes: int = 0
    provisioned_bytes: int = 0
    """The total size of its volumes if they were completely filled."""
    space: SpaceLevel = SpaceLevel.OK
    device: str | None = None
    filesystem: str | None = None
    nfs_version: NfsVersion | None = None
    """`nfs`: the version in use."""
    members: tuple[DatastoreMember, ...] = ()
    raid: RaidStatus | None = None


class Datastore(Record, frozen=True, kw_only=True):
    """A place for virtual machines, volumes and images."""

    id: Slug
    revision: int
    created_at: Timestamp
    spec: DatastoreSpec
    status: DatastoreStatus


DATASTORE_LISTING = Listing(
    item=Datastore,
    filters={
        "id": Column("id"),
        "kind": Column("spec.kind"),
        "state": Column("status.state"),
        "space": Column("status.space"),
        "filesystem": Column("status.filesystem"),
        "disk": Column("status.members.disk", text="A disk that is a member of it."),
    },
    sort={
        "id": Column("id"),
        "kind": Column("spec.kind"),
        "state": Column("status.state"),
        "created_at": Column("created_at"),
        "capacity_bytes": Column("status.capacity_bytes"),
        "free_bytes": Column("status.free_bytes"),
    },
    summary=(
        *("revision", "created_at", "spec.kind", "status.state", "status.reason"),
        *("status.capacity_bytes", "status.free_bytes", "status.space"),
    ),
)
