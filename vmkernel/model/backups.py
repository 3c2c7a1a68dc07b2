"""Backups of VMs: disks as they were at one instant, and the checkpoints between them."""

from __future__ import annotations

from vmkernel.model.base import Record, Slug, Timestamp

__all__ = ["Backup", "BackupDisk", "BackupExtent", "Checkpoint", "CheckpointDisk"]


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
    """It ends by itself then."""
    checkpoint: Slug | None = None
    """What a later backup can name to get only what changed since this one."""
    since: Slug | None = None
    """Only what changed since this checkpoint is listed."""
    quiet: bool
    """True where the guest's agent had its file systems flushed and held still. Of a VM that is off
    it is false: nobody knows how its last run has ended."""
    disks: tuple[BackupDisk, ...]


class BackupExtent(Record, frozen=True, kw_only=True):
    """A run of bytes of a disk."""

    offset: int
    length: int
    zero: bool
    """True where all of it is zero and need not be read."""


class CheckpointDisk(Record, frozen=True, kw_only=True):
    """A checkpoint on one disk."""

    key: str
    dirty_bytes: int | None
    """What changed since, in whole blocks of the bitmap; null while the VM is off."""
    usable: bool
    """False after a crash: the next backup of the disk must be a full one."""
    persistent: bool
    """False on a raw volume: it is gone once the VM is off."""


class Checkpoint(Record, frozen=True, kw_only=True):
    """An instant since which a VM's changes are recorded."""

    id: str
    disks: tuple[CheckpointDisk, ...]
