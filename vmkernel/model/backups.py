"""Backups of VMs: disks as they were at one instant, and the checkpoints between them."""

from __future__ import annotations

from vmkernel.model.base import Record, Slug, Timestamp
from vmkernel.model.listing import Column, Listing

__all__ = [
    "BACKUP_LISTING",
    "Backup",
    "BackupDisk",
    "BackupExtent",
    "BackupExtents",
    "BackupList",
    "CHECKPOINT_LISTING",
    "Checkpoint",
    "CheckpointDisk",
    "CheckpointList",
]


class BackupDisk(Record, frozen=True, kw_only=True):
    """One disk of a backup."""

    key: str
    volume: Slug
    size_bytes: int


class Backup(Record, frozen=True, kw_only=True):
    """The disks of a VM as they were at one instant, readable until it is ended."""

    id: str
    vm: Slug
    created_at: Timestamp
    expires_at: Timestamp
    """When it ends by itself."""
    checkpoint: Slug | None = None
    """What a later backup can name to get only what changed since this one."""
    since: Slug | None = None
    """If set, only the changes since this checkpoint are listed."""
    quiet: bool
    """True if the guest's file systems were frozen."""
    disks: tuple[BackupDisk, ...]


class BackupExtent(Record, frozen=True, kw_only=True):
    """A run of bytes of a disk."""

    offset: int
    length: int
    zero: bool
    """All of it is zeros and need not be read."""


class CheckpointDisk(Record, frozen=True, kw_only=True):
    """A checkpoint on one disk."""

    key: str
    dirty_bytes: int | None
    """What has changed since, in whole blocks; null while the VM is off."""
    usable: bool
    """False after a crash: the next backup must be a full one."""
    persistent: bool
    """False on a raw volume: the checkpoint is lost when the VM is powered off."""


class Checkpoint(Record, frozen=True, kw_only=True):
    """A point in time since which a VM's changes are recorded."""

    id: str
    disks: tuple[CheckpointDisk, ...]


class BackupList(Record, frozen=True, kw_only=True):
    """The open backups of a VM."""

    items: tuple[Backup, ...]
    next: str | None = None
    """The `page` of the next part; null at the end."""


class BackupExtents(Record, frozen=True, kw_only=True):
    """What to copy of a disk; between the extents nothing has changed."""

    extents: tuple[BackupExtent, ...]
    next: int | None
    """The `offset` of the next part; null at the end of the disk."""


class CheckpointList(Record, frozen=True, kw_only=True):
    """The checkpoints of a VM."""

    items: tuple[Checkpoint, ...]
    next: str | None = None
    """The `page` of the next part; null at the end."""


BACKUP_LISTING = Listing(
    item=Backup,
    filters={
        "id": Column("id"),
        "checkpoint": Column("checkpoint"),
        "since": Column("since"),
        "quiet": Column("quiet"),
        "disk": Column("disks.volume", text="A volume that it holds."),
    },
    sort={
        "id": Column("id"),
        "created_at": Column("created_at"),
        "expires_at": Column("expires_at"),
    },
    summary=("created_at", "expires_at", "checkpoint", "since"),
)

CHECKPOINT_LISTING = Listing(
    item=Checkpoint,
    filters={
        "id": Column("id"),
        "disk": Column("disks.key", text="The key of a disk that has it."),
        "usable": Column("disks.usable", text="Whether it can be used on one of its disks."),
    },
    sort={"id": Column("id")},
    summary=("disks.key", "disks.usable"),
)
