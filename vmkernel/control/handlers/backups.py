"""Backups of VMs, and data written into volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher, Streamed
from vmkernel.control.lists import answer_from
from vmkernel.control.requests import (
    BeginBackup,
    DeleteCheckpoint,
    Done,
    EndBackup,
    GetBackup,
    GetBackupVm,
    ListBackups,
    ListCheckpoints,
    ListExtents,
    Page,
    ReadBackup,
    WriteVolume,
)
from vmkernel.model import Backup, BackupExtents, SavedVm
from vmkernel.storage.service import StorageService

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel.vm.backup.service import VmBackups

__all__ = ["register"]


def register(
    dispatcher: Dispatcher, backups: Callable[[], VmBackups], storage: StorageService
) -> None:
    """`backups` makes the service when it is first needed."""

    @dispatcher.handler
    async def begin(request: BeginBackup, caller: Caller) -> Backup:
        return await backups().begin(
            request.id,
            disks=request.disks,
            checkpoint=request.checkpoint,
            since=request.since,
            time_limit_s=request.time_limit_s,
            actor=caller.actor,
        )

    @dispatcher.handler
    async def list_backups(request: ListBackups, _: Caller) -> Page:
        return await answer_from(request, backups().list(request.id))

    @dispatcher.handler
    async def get(request: GetBackup, _: Caller) -> Backup:
        return backups().get(request.id, request.backup)

    @dispatcher.handler
    async def get_vm(request: GetBackupVm, _: Caller) -> SavedVm:
        return await backups().saved_vm(request.id, request.backup)

    @dispatcher.handler
    async def end(request: EndBackup, caller: Caller) -> Done:
        await backups().end(request.id, request.backup, actor=caller.actor)
        return Done()

    @dispatcher.handler
    async def extents(request: ListExtents, _: Caller) -> BackupExtents:
        found, further = await backups().extents(
            request.id, request.backup, request.disk, request.offset
        )
        return BackupExtents(extents=found, next=further)

    @dispatcher.handler
    async def read(request: ReadBackup, _: Caller) -> Streamed:
        stream = await backups().read(
            request.id, request.backup, request.disk, request.offset, request.length
        )
        return Streamed(Done(), stream)

    @dispatcher.handler
    async def checkpoints(request: ListCheckpoints, _: Caller) -> Page:
        return await answer_from(request, await backups().checkpoints(request.id))

    @dispatcher.handler
    async def delete_checkpoint(request: DeleteCheckpoint, _: Caller) -> Done:
        await backups().delete_checkpoint(request.id, request.checkpoint)
        return Done()

    @dispatcher.handler
    async def write(request: WriteVolume, caller: Caller) -> Streamed:
        return Streamed(
            Done(),
            await storage.volume_data().write(
                request.id, request.offset, request.length, actor=caller.actor
            ),
        )
