"""Snapshots of virtual machines: points in a VM's history that it can go back to."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from remote_api.schema.base import Description, ObjectBody, Slug, Timestamp, WireEnum, WireModel

__all__ = [
    "RevertQuery",
    "Snapshot",
    "SnapshotBody",
    "SnapshotPage",
    "SnapshotSpec",
    "SnapshotState",
    "SnapshotStatus",
]


class SnapshotState(WireEnum):
    """Where a snapshot stands; one that is `deleting` goes when it is deleted again."""

    CREATING = "creating"
    READY = "ready"
    DELETING = "deleting"


class SnapshotSpec(WireModel, frozen=True, kw_only=True):
    """What a snapshot is wanted to hold."""

    description: Description = ""
    memory: Annotated[
        bool, Meta(description="With the memory of the running guest, which goes on from there.")
    ] = False
    quiesce: Annotated[
        bool,
        Meta(
            description="Let the guest agent hold the file systems of a running guest still;"
            " refused if it can't."
        ),
    ] = False
    best_effort: Annotated[
        bool,
        Meta(description="With `quiesce`: take it in any case; the status says why not quiet."),
    ] = False


class SnapshotStatus(WireModel, frozen=True, kw_only=True):
    """What is observed of a snapshot."""

    state: SnapshotState
    parent: Annotated[
        Slug | None, Meta(description="The snapshot after which it was taken; null for a first.")
    ] = None
    current: Annotated[
        bool, Meta(description="True where the VM's present state came after this one.")
    ] = False
    disks: Annotated[tuple[Slug, ...], Meta(description="The volumes that it holds.")] = ()
    machine_type: str = ""
    memory_bytes: Annotated[int, Meta(description="0 without memory.")] = 0
    quiesced: bool = False
    reason: Annotated[
        str | None, Meta(description="Why the guest was not quiet, where that was wanted.")
    ] = None


class Snapshot(WireModel, frozen=True, kw_only=True):
    """One snapshot of one virtual machine."""

    id: Slug
    vm: Slug
    created_at: Timestamp
    spec: SnapshotSpec
    status: SnapshotStatus


class SnapshotPage(WireModel, frozen=True, kw_only=True):
    """A part of the snapshots."""

    items: tuple[Snapshot, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class SnapshotBody(ObjectBody, frozen=True, kw_only=True):
    """A snapshot to take."""

    spec: SnapshotSpec = SnapshotSpec()
    vm: Annotated[Slug | UnsetType, Meta(description="Sent back; ignored.")] = UNSET


class RevertQuery(WireModel, frozen=True, kw_only=True):
    """What becomes of the VM after it went back."""

    start: (
        Annotated[
            bool,
            Meta(
                description="Whether it runs then; by default as it ran before, or with the"
                " memory of then."
            ),
        ]
        | UnsetType
    ) = UNSET
    wait: Annotated[
        float, Meta(ge=0, le=300, description="Seconds to wait for the work to finish.")
    ] = 0.0
