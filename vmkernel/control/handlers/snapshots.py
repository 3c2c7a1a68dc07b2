"""Snapshots of virtual machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.lists import answer_from
from vmkernel.control.requests import (
    CreateSnapshot,
    DeleteSnapshot,
    GetSnapshot,
    ListSnapshots,
    Page,
    RevertToSnapshot,
)
from vmkernel.model import Operation, Snapshot

if TYPE_CHECKING:
    from vmkernel.vm.snapshot_service import Snapshots

__all__ = ["register"]


def register(dispatcher: Dispatcher, service: Callable[[], Snapshots]) -> None:
    """The service is made when it is first needed."""

    @dispatcher.handler
    async def list_snapshots(request: ListSnapshots, _: Caller) -> Page:
        return await answer_from(request, await service().list(request.vm))

    @dispatcher.handler
    async def get_snapshot(request: GetSnapshot, _: Caller) -> Snapshot:
        return await service().get(request.vm, request.id)

    @dispatcher.handler
    async def create_snapshot(request: CreateSnapshot, caller: Caller) -> Operation:
        return await service().create(request.vm, request.id, request.spec, actor=caller.actor)

    @dispatcher.handler
    async def revert(request: RevertToSnapshot, caller: Caller) -> Operation:
        return await service().revert(
            request.vm, request.id, start=request.start, actor=caller.actor
        )

    @dispatcher.handler
    async def delete_snapshot(request: DeleteSnapshot, caller: Caller) -> Operation:
        return await service().delete(request.vm, request.id, actor=caller.actor)
