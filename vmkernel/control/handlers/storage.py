"""Disks, datastores, images, volumes."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher, Streamed
from vmkernel.control.handlers.paging import cut
from vmkernel.control.requests import (
    CreateDatastore,
    CreateVolume,
    DatastorePage,
    DeleteDatastore,
    DeleteImage,
    DeleteVolume,
    DiskPage,
    Done,
    GetDatastore,
    GetImage,
    GetVolume,
    ImagePage,
    ListDatastores,
    ListDisks,
    ListImages,
    ListVolumes,
    ResizeVolume,
    UploadImage,
    VolumePage,
)
from vmkernel.model import Datastore, Image, Operation, Volume
from vmkernel.storage import StorageService

__all__ = ["register"]


def register(dispatcher: Dispatcher, storage: StorageService) -> None:
    """Serve the requests about storage."""
    _register_datastores(dispatcher, storage)
    _register_images(dispatcher, storage)
    _register_volumes(dispatcher, storage)


def _register_datastores(dispatcher: Dispatcher, storage: StorageService) -> None:
    async def list_disks(request: ListDisks, _: Caller) -> DiskPage:
        disks = await storage.list_disks()
        items, more = cut(disks, lambda disk: disk.id, request.after, request.limit)
        return DiskPage(items=items, more=more)

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

    dispatcher.register(ListDisks, list_disks)
    dispatcher.register(ListDatastores, list_datastores)
    dispatcher.register(GetDatastore, get_datastore)
    dispatcher.register(CreateDatastore, create_datastore)
    dispatcher.register(DeleteDatastore, delete_datastore)


def _register_images(dispatcher: Dispatcher, storage: StorageService) -> None:
    async def list_images(request: ListImages, _: Caller) -> ImagePage:
        found = storage.list_images(request.datastore)
        items, more = cut(found, lambda item: item.id, request.after, request.limit)
        return ImagePage(items=items, more=more)

    async def get_image(request: GetImage, _: Caller) -> Image:
        return storage.images.get(request.id)

    async def upload_image(request: UploadImage, caller: Caller) -> Streamed:
        operation, stream = await storage.upload_image(request.id, request.spec, actor=caller.actor)
        return Streamed(operation, stream)

    async def delete_image(request: DeleteImage, caller: Caller) -> Done:
        await storage.delete_image(request.id, actor=caller.actor)
        return Done()

    dispatcher.register(ListImages, list_images)
    dispatcher.register(GetImage, get_image)
    dispatcher.register(UploadImage, upload_image)
    dispatcher.register(DeleteImage, delete_image)


def _register_volumes(dispatcher: Dispatcher, storage: StorageService) -> None:
    async def list_volumes(request: ListVolumes, _: Caller) -> VolumePage:
        items, more = await storage.list_volumes(request.datastore, request.after, request.limit)
        return VolumePage(items=items, more=more)

    async def get_volume(request: GetVolume, _: Caller) -> Volume:
        return await storage.volumes.get(request.id)

    async def create_volume(request: CreateVolume, caller: Caller) -> Operation:
        return await storage.create_volume(request.id, request.spec, actor=caller.actor)

    async def resize_volume(request: ResizeVolume, caller: Caller) -> Operation:
        return await storage.volumes.resize(
            request.id,
            request.size_bytes,
            revision=request.revision,
            allow_shrink=request.allow_shrink,
            actor=caller.actor,
        )

    async def delete_volume(request: DeleteVolume, caller: Caller) -> Done:
        await storage.delete_volume(request.id, actor=caller.actor, revision=request.revision)
        return Done()

    dispatcher.register(ListVolumes, list_volumes)
    dispatcher.register(GetVolume, get_volume)
    dispatcher.register(CreateVolume, create_volume)
    dispatcher.register(ResizeVolume, resize_volume)
    dispatcher.register(DeleteVolume, delete_volume)
