"""Images."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.handlers.paging import cut
from vmkernel.control.requests import (
    DeleteImage,
    Done,
    GetImage,
    ListImages,
    Page,
)
from vmkernel.model import Image
from vmkernel.storage.service import StorageService

__all__ = ["register"]


def register(dispatcher: Dispatcher, storage: StorageService) -> None:
    @dispatcher.handler
    async def list_images(request: ListImages, _: Caller) -> Page[Image]:
        found = storage.images.list(request.datastore)
        items, more = cut(found, lambda item: item.id, request.after, request.limit)
        return Page(items=items, more=more)

    @dispatcher.handler
    async def get_image(request: GetImage, _: Caller) -> Image:
        return storage.images.get(request.id)

    @dispatcher.handler
    async def delete_image(request: DeleteImage, caller: Caller) -> Done:
        await storage.images.delete(request.id, actor=caller.actor)
        return Done()
