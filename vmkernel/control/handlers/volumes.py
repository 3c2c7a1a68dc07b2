"""Volumes."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.requests import (
    CheckVolume,
    CreateVolume,
    DeleteVolume,
    Done,
    FlattenVolume,
    GetVolume,
    ListVolumes,
    MoveVolume,
    ResizeVolume,
    VolumePage,
)
from vmkernel.model import Operation, Volume
from vmkernel.storage.service import StorageService

__all__ = ["register"]


def register(dispatcher: Dispatcher, storage: StorageService) -> None:
    """Serve the requests about volumes."""

    async def list_volumes(request: ListVolumes, _: Caller) -> VolumePage:
        items, more = await storage.volumes.list(request.datastore, request.after, request.limit)
        return VolumePage(items=items, more=more)

    async def get_volume(request: GetVolume, _: Caller) -> Volume:
        return await storage.volumes.get(request.id)

    async def create_volume(request: CreateVolume, caller: Caller) -> Operation:
        return await storage.volumes.create(request.id, request.spec, actor=caller.actor)

    async def resize_volume(request: ResizeVolume, caller: Caller) -> Operation:
        return await storage.volume_changes.resize(
            request.id,
            request.size_bytes,
            revision=request.revision,
            allow_shrink=request.allow_shrink,
            actor=caller.actor,
        )

    async def move_volume(request: MoveVolume, caller: Caller) -> Operation:
        return await storage.volume_changes.move(
            request.id,
            datastore=request.datastore,
            volume_format=request.format,
            allocation=request.allocation,
            revision=request.revision,
            actor=caller.actor,
        )

    async def flatten_volume(request: FlattenVolume, caller: Caller) -> Operation:
        return await storage.volume_changes.flatten(request.id, actor=caller.actor)

    async def check_volume(request: CheckVolume, caller: Caller) -> Operation:
        return await storage.volume_changes.check(request.id, request.repair, actor=caller.actor)

    async def delete_volume(request: DeleteVolume, caller: Caller) -> Done:
        await storage.volumes.delete(request.id, actor=caller.actor, revision=request.revision)
        return Done()

    dispatcher.register(ListVolumes, list_volumes)
    dispatcher.register(GetVolume, get_volume)
    dispatcher.register(CreateVolume, create_volume)
    dispatcher.register(ResizeVolume, resize_volume)
    dispatcher.register(MoveVolume, move_volume)
    dispatcher.register(FlattenVolume, flatten_volume)
    dispatcher.register(CheckVolume, check_volume)
    dispatcher.register(DeleteVolume, delete_volume)
