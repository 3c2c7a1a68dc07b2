"""Datastores."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.handlers.paging import cut
from vmkernel.control.requests import (
    CreateDatastore,
    DatastorePage,
    DeleteDatastore,
    GetDatastore,
    ListDatastores,
)
from vmkernel.model import Datastore, Operation
from vmkernel.storage import StorageService

__all__ = ["register"]


def register(dispatcher: Dispatcher, storage: StorageService) -> None:
    """Serve the requests about datastores."""

    async def list_datastores(request: ListDatastores, _: Caller) -> DatastorePage:
        found = await storage.list_datastores()
        items, more = cut(found, lambda item: item.id, request.after, request.limit)
        return DatastorePage(items=items, more=more)

    async def get_datastore(request: GetDatastore, _: Caller) -> Datastore:
        return await storage.get_datastore(request.id)

    async def create_datastore(request: CreateDatastore, caller: Caller) -> Operation:
        return await storage.create_datastore(
            request.id, request.spec, request.wipe_serial, actor=caller.actor
        )

    async def delete_datastore(request: DeleteDatastore, caller: Caller) -> Operation:
        return await storage.delete_datastore(request.id, actor=caller.actor)

    dispatcher.register(ListDatastores, list_datastores)
    dispatcher.register(GetDatastore, get_datastore)
    dispatcher.register(CreateDatastore, create_datastore)
    dispatcher.register(DeleteDatastore, delete_datastore)
