"""Snapshots of virtual machines: points in a VM's history that it can be reverted to."""

from __future__ import annotations

from vmkernel.model.base import Description, OpenEnum, Record, Slug, Timestamp
from vmkernel.model.listing import Column, Listing

__all__ = ["SNAPSHOT_LISTING", "Snapshot", "SnapshotSpec", "SnapshotState", "SnapshotStatus"]


class SnapshotState(OpenEnum):
    """The state of a snapshot; one that is `deleting` is removed by deleting it again."""

    CREATING = "creating"
    READY = "ready"
    DELETING = "deleting"
    """It can't be used any more; deleting it again removes what is left."""


class SnapshotSpec(Record, frozen=True, kw_only=True):
    """What a snapshot should contain."""

    description: Description = ""
    memory: bool = False
    """Include the memory of the running guest; the guest continues from there after a revert."""
    quiesce: bool = False
    """Have the guest agent freeze the file systems of a running guest; the snapshot fails if it
    can't."""
    best_effort: bool = False
    """With `quiesce`: take the snapshot even if the guest can't be quiesced; the status says why.
    """


class SnapshotStatus(Record, frozen=True, kw_only=True):
    """What is observed of a snapshot."""

    state: SnapshotState
    parent: Slug | None = None
    """The snapshot that it is based on; null for the first one."""
    current: bool = False
    """True if the VM's present state is based on it."""
    disks: tuple[Slug, ...] = ()
    """The volumes that it includes."""
    machine_type: str = ""
    memory_bytes: int = 0
    """0 without memory."""
    quiesced: bool = False
    reason: str | None = None
    """Why the guest was not quiesced although this was requested."""


class Snapshot(Record, frozen=True, kw_only=True):
    """A snapshot of a VM."""

    id: Slug
    vm: Slug
    created_at: Timestamp
    spec: SnapshotSpec
    status: SnapshotStatus


SNAPSHOT_LISTING = Listing(
    item=Snapshot,
    filters={
        "id": Column("id"),
        "state": Column("status.state"),
        "parent": Column("status.parent", text="Empty for what comes after none."),
        "current": Column("status.current"),
        "memory": Column("spec.memory"),
        "quiesced": Column("status.quiesced"),
        "disk": Column("status.disks", text="A volume that it holds."),
    },
    sort={
        "id": Column("id"),
        "state": Column("status.state"),
        "created_at": Column("created_at"),
    },
    summary=("created_at", "status.state", "status.parent", "status.current", "status.reason"),
)
