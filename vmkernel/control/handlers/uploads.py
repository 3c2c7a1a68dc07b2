"""Uploads, pulls, captures and downloads of images."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher, Streamed
from vmkernel.control.lists import answer_from
from vmkernel.control.requests import (
    CaptureImage,
    CreateUpload,
    DeleteUpload,
    Done,
    GetImageMap,
    GetUpload,
    GetVolumeData,
    GetVolumeMap,
    ListUploads,
    Page,
    PullImage,
    ReadImage,
    ReadVolume,
    UploadImage,
    WriteUpload,
)
from vmkernel.model import DataMap, Operation, StoredData, Upload
from vmkernel.storage.service import StorageService

__all__ = [
    "register",
]


def register(dispatcher: Dispatcher, storage: StorageService) -> None:
    @dispatcher.handler
    async def upload_image(request: UploadImage, caller: Caller) -> Streamed:
        operation, stream = await storage.images.upload(
            request.id, request.spec, actor=caller.actor
        )
        return Streamed(operation, stream)

    @dispatcher.handler
    async def pull_image(request: PullImage, caller: Caller) -> Operation:
        return await storage.images.pull(request.id, request.spec, actor=caller.actor)

    @dispatcher.handler
    async def capture_image(request: CaptureImage, caller: Caller) -> Operation:
        return await storage.images.capture(request.id, request.spec, actor=caller.actor)

    @dispatcher.handler
    async def read_image(request: ReadImage, caller: Caller) -> Streamed:
        return Streamed(
            *await storage.images.read(
                request.id, request.offset, request.length, actor=caller.actor
            )
        )

    @dispatcher.handler
    async def get_volume_data(request: GetVolumeData, _: Caller) -> StoredData:
        return await storage.images.volume_data(request.id)

    @dispatcher.handler
    async def map_image(request: GetImageMap, _: Caller) -> DataMap:
        return await storage.images.map(request.id, request.offset)

    @dispatcher.handler
    async def map_volume(request: GetVolumeMap, _: Caller) -> DataMap:
        return await storage.images.map_volume(request.id, request.offset)

    @dispatcher.handler
    async def read_volume(request: ReadVolume, caller: Caller) -> Streamed:
        return Streamed(
            *await storage.images.read_volume(
                request.id, request.offset, request.length, actor=caller.actor
            )
        )

    _register_resumable(dispatcher, storage)


def _register_resumable(dispatcher: Dispatcher, storage: StorageService) -> None:
    @dispatcher.handler
    async def list_uploads(request: ListUploads, _: Caller) -> Page:
        return await answer_from(request, await storage.uploads.list())

    @dispatcher.handler
    async def get_upload(request: GetUpload, _: Caller) -> Upload:
        return await storage.uploads.get(request.id)

    @dispatcher.handler
    async def create_upload(request: CreateUpload, caller: Caller) -> Upload:
        return await storage.uploads.create(request.spec, actor=caller.actor)

    @dispatcher.handler
    async def write_upload(request: WriteUpload, caller: Caller) -> Streamed:
        return Streamed(
            *await storage.uploads.write(
                request.id,
                request.offset,
                length=request.length,
                checksum=request.checksum,
                actor=caller.actor,
            )
        )

    @dispatcher.handler
    async def delete_upload(request: DeleteUpload, _: Caller) -> Done:
        await storage.uploads.delete(request.id)
        return Done()
