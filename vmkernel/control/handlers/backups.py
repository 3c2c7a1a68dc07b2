"""Backups of VMs, and data written into volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher, Streamed
from vmkernel.control.requests import (
    BackupExtents,
    BackupList,
    BeginBackup,
    CheckpointList,
    DeleteCheckpoint,
    Done,
    EndBackup,
    GetBackup,
    GetBackupVm,
    ListBackups,
    ListCheckpoints,
    ListExtents,
    ReadBackup,
    WriteVolume,
)
from vmkernel.model import Backup, SavedVm
from vmkernel.storage.service import StorageService

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel.vm.backups import VmBackups

__all__ = ["register"]


def register(
    dispatcher: Dispatcher, backups: Callable[[], VmBackups], storage: StorageService
) -> None:
    """Serve the requests; `backups` makes the service when it is first asked for."""

    async def begin(request: BeginBackup, caller: Caller) -> Backup:
        return await backups().begin(
            request.id,
            disks=request.disks,
            checkpoint=request.checkpoint,
            since=request.since,
            time_limit_s=request.time_limit_s,
            actor=caller.actor,
        )

    async def list_backups(request: ListBackups, _: Caller) -> BackupList:
        return BackupList(items=backups().list(request.id))

    async def get(request: GetBackup, _: Caller) -> Backup:
        return backups().get(request.id, request.backup)

    async def get_vm(request: GetBackupVm, _: Caller) -> SavedVm:
        return await backups().saved_vm(request.id, request.backup)

    async def end(request: EndBackup, caller: Caller) -> Done:
        await backups().end(request.id, request.backup, actor=caller.actor)
        return Done()

    async def extents(request: ListExtents, _: Caller) -> BackupExtents:
        found, further = await backups().extents(
            request.id, request.backup, request.disk, request.offset
        )
        return BackupExtents(extents=found, next=further)

    async def read(request: ReadBackup, _: Caller) -> Streamed:
        stream = await backups().read(
            request.id, request.backup, request.disk, request.offset, request.length
        )
        return Streamed(Done(), stream)

    async def checkpoints(request: ListCheckpoints, _: Caller) -> CheckpointList:
        return CheckpointList(items=await backups().checkpoints(request.id))

    async def delete_checkpoint(request: DeleteCheckpoint, _: Caller) -> Done:
        await backups().delete_checkpoint(request.id, request.checkpoint)
        return Done()

    async def write(request: WriteVolume, caller: Caller) -> Streamed:
        return Streamed(
            Done(),
            await storage.volume_data().write(
                request.id, request.offset, request.length, actor=caller.actor
            ),
        )

    dispatcher.register(BeginBackup, begin)
    dispatcher.register(ListBackups, list_backups)
    dispatcher.register(GetBackup, get)
    dispatcher.register(GetBackupVm, get_vm)
    dispatcher.register(EndBackup, end)
    dispatcher.register(ListExtents, extents)
    dispatcher.register(ReadBackup, read)
    dispatcher.register(ListCheckpoints, checkpoints)
    dispatcher.register(DeleteCheckpoint, delete_checkpoint)
    dispatcher.register(WriteVolume, write)
