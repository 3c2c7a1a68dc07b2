"""Images."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.lists import answer_from
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
    async def list_images(request: ListImages, _: Caller) -> Page:
        return await answer_from(request, storage.images.list(None))

    @dispatcher.handler
    async def get_image(request: GetImage, _: Caller) -> Image:
        return storage.images.get(request.id)

    @dispatcher.handler
    async def delete_image(request: DeleteImage, caller: Caller) -> Done:
        await storage.images.delete(request.id, actor=caller.actor)
        return Done()
