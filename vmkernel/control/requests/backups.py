"""Backups of VMs, and data written into volumes."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from vmkernel.control.requests.base import Done, ListRequest, Request
from vmkernel.model import (
    BACKUP_LISTING,
    CHECKPOINT_LISTING,
    Backup,
    BackupExtents,
    Listing,
    Role,
    SavedVm,
    Slug,
)
from vmkernel.model.base import ShortText

__all__ = [
    "BeginBackup",
    "DeleteCheckpoint",
    "EndBackup",
    "GetBackup",
    "GetBackupVm",
    "ListBackups",
    "ListCheckpoints",
    "ListExtents",
    "ReadBackup",
    "WriteVolume",
]

Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class BeginBackup(Request[Backup], frozen=True, kw_only=True, tag="vm.begin-backup"):
    """Keep the present content of a VM's disks readable."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    disks: Annotated[tuple[ShortText, ...], msgspec.Meta(max_length=64)] | None = None
    checkpoint: Slug | None = None
    since: Slug | None = None
    time_limit_s: Annotated[int, msgspec.Meta(ge=10, le=7 * 86400)] = 4 * 3600


class ListBackups(ListRequest, frozen=True, kw_only=True, tag="vm.backups"):
    """The open backups of a VM."""

    LISTING: ClassVar[Listing] = BACKUP_LISTING

    id: Slug


class GetBackup(Request[Backup], frozen=True, kw_only=True, tag="vm.backup"):
    """One backup."""

    READ_ONLY: ClassVar[bool] = True

    id: Slug
    backup: ShortText


class GetBackupVm(Request[SavedVm], frozen=True, kw_only=True, tag="vm.backup-vm"):
    """The VM of a backup without its disks: spec, firmware variables, TPM state, with secrets."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    READ_ONLY: ClassVar[bool] = True
    DISCLOSES: ClassVar[bool] = True

    id: Slug
    backup: ShortText


class EndBackup(Request[Done], frozen=True, kw_only=True, tag="vm.end-backup"):
    """End a backup; its checkpoint stays."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    backup: ShortText


class ListExtents(Request[BackupExtents], frozen=True, kw_only=True, tag="vm.backup-extents"):
    """The ranges of a backup's disk to be copied, from an offset on."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    READ_ONLY: ClassVar[bool] = True

    id: Slug
    backup: ShortText
    disk: ShortText
    offset: Bytes = 0


class ReadBackup(Request[Done], frozen=True, kw_only=True, tag="vm.read-backup"):
    """A part of a backup's disk as a stream, which ends early if it can't be read."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    STREAM: ClassVar[bool] = True
    READ_ONLY: ClassVar[bool] = True
    DISCLOSES: ClassVar[bool] = True

    id: Slug
    backup: ShortText
    disk: ShortText
    offset: Bytes
    length: Bytes


class ListCheckpoints(ListRequest, frozen=True, kw_only=True, tag="vm.checkpoints"):
    """The checkpoints of a VM."""

    LISTING: ClassVar[Listing] = CHECKPOINT_LISTING

    id: Slug


class DeleteCheckpoint(Request[Done], frozen=True, kw_only=True, tag="vm.delete-checkpoint"):
    """Forget a checkpoint of a VM."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: Slug
    checkpoint: Slug


class WriteVolume(Request[Done], frozen=True, kw_only=True, tag="storage.write-volume"):
    """Write a part of a raw volume that no running VM uses, from a stream.

    The stream takes exactly `length` bytes and is then shut down for writing; the answer on it is
    empty if the data are durable, or an ErrorInfo as JSON.
    """

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    STREAM: ClassVar[bool] = True
    IN_PARTS: ClassVar[bool] = True

    id: Slug
    offset: Bytes
    length: Bytes
