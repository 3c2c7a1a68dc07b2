"""Backups of VMs."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Slug, Timestamp, WireModel

__all__ = [
    "Backup",
    "BackupBody",
    "BackupDisk",
    "BackupExtent",
    "BackupExtents",
    "BackupList",
    "Checkpoint",
    "CheckpointDisk",
    "CheckpointList",
    "ExtentsQuery",
]


class BackupBody(WireModel, frozen=True, kw_only=True):
    """A backup to begin."""

    disks: (
        Annotated[
            tuple[str, ...],
            Meta(max_length=64, description="Keys such as `disk0`; all disks where left out."),
        ]
        | None
    ) = None
    checkpoint: Annotated[
        Slug | None, Meta(description="Record changes from now on under this name.")
    ] = None
    since: Annotated[
        Slug | None, Meta(description="List only what changed since this checkpoint.")
    ] = None
    time_limit_s: Annotated[
        int, Meta(ge=10, le=7 * 86400, description="It ends by itself after so many seconds.")
    ] = 4 * 3600


class BackupDisk(WireModel, frozen=True, kw_only=True):
    """One disk of a backup."""

    key: str
    volume: Slug
    size_bytes: int


class Backup(WireModel, frozen=True, kw_only=True):
    """The disks of a VM as they were at one instant, readable until it is ended."""

    id: str
    vm: Slug
    created_at: Timestamp
    expires_at: Annotated[Timestamp, Meta(description="It ends by itself then.")]
    checkpoint: Slug | None = None
    since: Slug | None = None
    quiet: Annotated[bool, Meta(description="True where the guest's file systems were held still.")]
    disks: tuple[BackupDisk, ...]


class BackupList(WireModel, frozen=True, kw_only=True):
    """The backups of a VM that are open."""

    items: tuple[Backup, ...]


class BackupExtent(WireModel, frozen=True, kw_only=True):
    """A run of bytes of a disk."""

    offset: int
    length: int
    zero: Annotated[bool, Meta(description="All of it is zero and need not be read.")]


class BackupExtents(WireModel, frozen=True, kw_only=True):
    """What is to be copied of a disk; between the extents nothing has changed."""

    extents: tuple[BackupExtent, ...]
    next: Annotated[
        int | None, Meta(description="The `offset` that goes on; null at the disk's end.")
    ]


class ExtentsQuery(WireModel, frozen=True, kw_only=True):
    """Where a list of extents begins."""

    offset: Annotated[int, Meta(ge=0, le=1 << 62, description="In bytes.")] = 0


class CheckpointDisk(WireModel, frozen=True, kw_only=True):
    """A checkpoint on one disk."""

    key: str
    dirty_bytes: Annotated[
        int | None,
        Meta(description="What changed since, in whole blocks; null while the VM is off."),
    ]
    usable: Annotated[
        bool, Meta(description="False after a crash: the next backup must be a full one.")
    ]
    persistent: Annotated[
        bool, Meta(description="False on a raw volume: it is gone once the VM is off.")
    ]


class Checkpoint(WireModel, frozen=True, kw_only=True):
    """An instant since which a VM's changes are recorded."""

    id: str
    disks: tuple[CheckpointDisk, ...]


class CheckpointList(WireModel, frozen=True, kw_only=True):
    """The checkpoints of a VM."""

    items: tuple[Checkpoint, ...]
