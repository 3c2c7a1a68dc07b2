"""Volumes."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.lists import Fetched, Selection, answer
from vmkernel.control.requests import (
    CheckVolume,
    CreateVolume,
    DeleteVolume,
    Done,
    FlattenVolume,
    GetVolume,
    KeepVolume,
    ListVolumes,
    MoveVolume,
    Page,
    ResizeVolume,
)
from vmkernel.model import Operation, Volume
from vmkernel.storage.service import StorageService

__all__ = ["register"]


def register(dispatcher: Dispatcher, storage: StorageService) -> None:
    @dispatcher.handler
    async def list_volumes(request: ListVolumes, _: Caller) -> Page:
        async def fetch(wanted: Selection, after: str | None, limit: int) -> Fetched:
            return await storage.volumes.list(wanted.exact.get("datastore"), after, limit)

        return await answer(request, fetch)

    @dispatcher.handler
    async def get_volume(request: GetVolume, _: Caller) -> Volume:
        return await storage.volumes.get(request.id)

    @dispatcher.handler
    async def create_volume(request: CreateVolume, caller: Caller) -> Operation:
        return await storage.volumes.create(request.id, request.spec, actor=caller.actor)

    @dispatcher.handler
    async def keep_volume(request: KeepVolume, caller: Caller) -> Operation:
        return await storage.volumes.keep(
            request.id, together_with=request.together_with, actor=caller.actor
        )

    @dispatcher.handler
    async def resize_volume(request: ResizeVolume, caller: Caller) -> Operation:
        return await storage.volume_resizing.resize(
            request.id,
            request.size_bytes,
            revision=request.revision,
            allow_shrink=request.allow_shrink,
            actor=caller.actor,
        )

    @dispatcher.handler
    async def move_volume(request: MoveVolume, caller: Caller) -> Operation:
        return await storage.volume_moves.move(
            request.id,
            datastore=request.datastore,
            volume_format=request.format,
            allocation=request.allocation,
            revision=request.revision,
            actor=caller.actor,
        )

    @dispatcher.handler
    async def flatten_volume(request: FlattenVolume, caller: Caller) -> Operation:
        return await storage.volume_moves.flatten(request.id, actor=caller.actor)

    @dispatcher.handler
    async def check_volume(request: CheckVolume, caller: Caller) -> Operation:
        return await storage.volume_file_check.check(request.id, request.repair, actor=caller.actor)

    @dispatcher.handler
    async def delete_volume(request: DeleteVolume, caller: Caller) -> Done:
        await storage.volumes.delete(request.id, actor=caller.actor, revision=request.revision)
        return Done()
