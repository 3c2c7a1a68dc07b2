"""Datastores."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.lists import answer_from
from vmkernel.control.requests import (
    AddDatastoreDisk,
    CreateDatastore,
    DeleteDatastore,
    GetDatastore,
    GrowDatastore,
    ListDatastores,
    MountDatastore,
    Page,
    RenameDatastore,
    ReplaceDatastoreDisk,
    UnmountDatastore,
    UpdateDatastore,
)
from vmkernel.model import Datastore, Operation
from vmkernel.storage.drivers.base import CreateOptions
from vmkernel.storage.service import StorageService

__all__ = ["register"]


def register(dispatcher: Dispatcher, storage: StorageService) -> None:
    @dispatcher.handler
    async def list_datastores(request: ListDatastores, _: Caller) -> Page:
        return await answer_from(request, await storage.datastore_views.list())

    @dispatcher.handler
    async def get_datastore(request: GetDatastore, _: Caller) -> Datastore:
        return await storage.datastore_views.get(request.id)

    @dispatcher.handler
    async def create_datastore(request: CreateDatastore, caller: Caller) -> Operation:
        return await storage.datastore_changes.create(
            request.id,
            request.spec,
            CreateOptions(
                wipe_serials=request.wipe_serials,
                adopt=request.adopt,
                take_over=request.take_over,
            ),
            actor=caller.actor,
        )

    @dispatcher.handler
    async def update_datastore(request: UpdateDatastore, caller: Caller) -> Datastore:
        return await storage.datastore_changes.update(
            request.id,
            warning_percent=request.warning_percent,
            critical_percent=request.critical_percent,
            revision=request.revision,
            actor=caller.actor,
        )

    @dispatcher.handler
    async def rename_datastore(request: RenameDatastore, caller: Caller) -> Operation:
        return await storage.datastore_changes.rename(
            request.id, request.new_id, actor=caller.actor
        )

    @dispatcher.handler
    async def mount_datastore(request: MountDatastore, caller: Caller) -> Operation:
        return await storage.datastore_changes.mount(
            request.id, take_over=request.take_over, actor=caller.actor
        )

    @dispatcher.handler
    async def unmount_datastore(request: UnmountDatastore, caller: Caller) -> Operation:
        return await storage.datastore_changes.unmount(request.id, actor=caller.actor)

    @dispatcher.handler
    async def grow_datastore(request: GrowDatastore, caller: Caller) -> Operation:
        return await storage.datastore_changes.grow(request.id, actor=caller.actor)

    @dispatcher.handler
    async def add_disk(request: AddDatastoreDisk, caller: Caller) -> Operation:
        options = CreateOptions(wipe_serials=request.wipe_serials)
        return await storage.datastore_changes.add_disk(
            request.id, request.disk, options, actor=caller.actor
        )

    @dispatcher.handler
    async def replace_disk(request: ReplaceDatastoreDisk, caller: Caller) -> Operation:
        options = CreateOptions(wipe_serials=request.wipe_serials)
        return await storage.datastore_changes.replace_disk(
            request.id, request.old, request.new, options, actor=caller.actor
        )

    @dispatcher.handler
    async def delete_datastore(request: DeleteDatastore, caller: Caller) -> Operation:
        return await storage.datastore_changes.delete(request.id, actor=caller.actor)
