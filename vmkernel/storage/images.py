"""Images: taken from a stream, proven, and never changed."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from vmkernel import clock
from vmkernel.host.errors import from_os_error
from vmkernel.model import (
    ErrorCode,
    Image,
    ImageSpec,
    ImageStatus,
    MicaError,
    Operation,
    Subject,
)
from vmkernel.operations import OperationContext, OperationRegistry
from vmkernel.storage.catalogue import Catalogue, ImageEntry
from vmkernel.storage.datastores import Datastores
from vmkernel.storage.errors import StorageError
from vmkernel.storage.records import ImageRecord
from vmkernel.storage.uploads import MAX_UPLOADS, Uploader
from vmkernel.storage.users import Users

__all__ = ["Images"]

_UNKNOWN_SHA256 = "0" * 64


class Images:
    """Owns the images of all datastores."""

    def __init__(
        self,
        datastores: Datastores,
        catalogue: Catalogue,
        operations: OperationRegistry,
        users: Users,
        uploader: Uploader,
    ) -> None:
        self._datastores = datastores
        self._catalogue = catalogue
        self._operations = operations
        self._users = users
        self._uploader = uploader
        self._uploads = 0

    def list(self, datastore: str | None) -> tuple[Image, ...]:
        """The images by id, of one datastore or of all."""
        found = [
            self._describe(entry)
            for entry in self._catalogue.images.values()
            if datastore is None or entry.datastore == datastore
        ]
        return tuple(sorted(found, key=lambda image: image.id))

    def get(self, image_id: str) -> Image:
        """One image."""
        return self._describe(self._catalogue.image(image_id))

    async def upload(
        self, image_id: str, spec: ImageSpec, *, actor: str
    ) -> tuple[Operation, socket.socket]:
        """Begin to take an image; the operation, and the stream's other end for the sender."""
        if image_id in self._catalogue.images:
            raise MicaError(ErrorCode.ALREADY_EXISTS, f"There is an image {image_id} already.")
        layout = self._datastores.layout_for(spec.datastore)
        if self._uploads >= MAX_UPLOADS:
            raise StorageError(
                ErrorCode.UNAVAILABLE, f"{MAX_UPLOADS} uploads are under way; try again later."
            )
        place = layout.image(image_id, spec.format)
        if place.data.exists():
            raise StorageError(
                ErrorCode.CONFLICT,
                f"A file {place.data.name} without a description lies on {spec.datastore}.",
            )
        with contextlib.ExitStack() as undo:
            release = self._datastores.reserve(
                spec.datastore, spec.size_bytes, pointer="/spec/size_bytes"
            )
            undo.callback(release)
            undo.enter_context(self._catalogue.claimed("image", image_id, "uploaded"))
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.callback(ours.close)
            undo.callback(self._ended)
            self._uploads += 1
            held = undo.pop_all()

            async def work(context: OperationContext) -> None:
                with held:
                    await receive(context)

            async def receive(context: OperationContext) -> None:
                async with self._datastores.using(spec.datastore):
                    virtual_size = await self._uploader.receive(
                        ours,
                        place.incoming,
                        spec,
                        on_allocated=release,
                        on_progress=lambda done: context.advance(
                            done, spec.size_bytes, stage="receive"
                        ),
                    )
                    context.commit_point()
                    record = ImageRecord(
                        id=image_id,
                        created_at=clock.now(),
                        format=spec.format,
                        size_bytes=spec.size_bytes,
                        sha256=spec.sha256,
                        virtual_size_bytes=virtual_size,
                    )
                    try:
                        await asyncio.to_thread(place.publish, record)
                    except OSError as error:
                        raise from_os_error(error, "The image can't be stored") from error
                    self._catalogue.images[image_id] = ImageEntry(
                        image_id, spec.datastore, place, spec.format, record
                    )

            try:
                operation = self._operations.begin(
                    "image.upload",
                    Subject(kind="image", id=image_id),
                    work,
                    actor=actor,
                    cancellable=True,
                )
            except BaseException:
                held.close()
                theirs.close()
                raise
        return operation, theirs

    async def delete(self, image_id: str) -> None:
        """Delete an image that nobody uses; durable on return."""
        entry = self._catalogue.image(image_id)
        if vms := self._users.vms_of_image(image_id):
            raise StorageError(ErrorCode.IN_USE, f"VM {vms[0]} names image {image_id}.")
        if self._catalogue.is_read(image_id):
            raise StorageError(
                ErrorCode.IN_USE, f"A volume is being made from image {image_id}; wait for it."
            )
        with self._catalogue.claimed("image", image_id, "deleted"):
            async with self._datastores.using(entry.datastore):
                del self._catalogue.images[image_id]
                try:
                    await asyncio.to_thread(entry.place.remove)
                except BaseException as error:
                    self._catalogue.images[image_id] = entry
                    if isinstance(error, OSError):
                        raise from_os_error(error, f"Image {image_id} can't be deleted") from error
                    raise

    def _ended(self) -> None:
        self._uploads -= 1

    def _describe(self, entry: ImageEntry) -> Image:
        record = entry.record
        return Image(
            id=entry.id,
            created_at=record.created_at if record else clock.format_time(0),
            spec=ImageSpec(
                datastore=entry.datastore,
                format=entry.format,
                size_bytes=record.size_bytes if record else 1,
                sha256=record.sha256 if record else _UNKNOWN_SHA256,
            ),
            status=ImageStatus(
                virtual_size_bytes=record.virtual_size_bytes if record else 0,
                used_by=self._users.vms_of_image(entry.id),
                reason=entry.reason,
            ),
        )
