"""Snapshots of virtual machines: points in a VM's history that it can be reverted to."""

from __future__ import annotations

from vmkernel.model.base import Description, OpenEnum, Record, Slug, Timestamp
from vmkernel.model.listing import Column, Listing

__all__ = ["SNAPSHOT_LISTING", "Snapshot", "SnapshotSpec", "SnapshotState", "SnapshotStatus"]


class SnapshotState(OpenEnum):
    """The state of a snapshot; one that is `deleting` is removed when it is deleted again."""

    CREATING = "creating"
    READY = "ready"
    DELETING = "deleting"
    """Of no use any more; what is left of it goes when it is deleted again."""


class SnapshotSpec(Record, frozen=True, kw_only=True):
    """What a snapshot is wanted to hold."""

    description: Description = ""
    memory: bool = False
    """Include the memory of the running guest, which continues from there."""
    quiesce: bool = False
    """Let the guest agent hold the file systems of a running guest still; refused if it can't."""
    best_effort: bool = False
    """With `quiesce`: take it in any case; the status says why it is not quiesced."""


class SnapshotStatus(Record, frozen=True, kw_only=True):
    """What is observed of a snapshot."""

    state: SnapshotState
    parent: Slug | None = None
    """The snapshot after which it was taken; null for a first."""
    current: bool = False
    """True if the VM's present state is based on this one."""
    disks: tuple[Slug, ...] = ()
    """The volumes that it holds."""
    machine_type: str = ""
    memory_bytes: int = 0
    """0 without memory."""
    quiesced: bool = False
    reason: str | None = None
    """Why the guest was not quiesced although that was requested."""


class Snapshot(Record, frozen=True, kw_only=True):
    """One snapshot of one virtual machine."""

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
