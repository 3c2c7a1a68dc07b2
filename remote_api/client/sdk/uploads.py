"""Uploads of images: in one request, or in parts that can be resumed (tus 1.0)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Unpack

from remote_api.client.errors import RefusedError, UnreachableError
from remote_api.client.sdk.base import CREATE, POLL_S, OnBytes
from remote_api.client.sdk.files import file_parts, file_sha256, file_size
from remote_api.client.sdk.images import ImageCalls
from remote_api.client.sdk.queries import UploadListQuery
from remote_api.client.sdk.retries import Retries
from remote_api.schema import (
    PageOf,
)
from vmkernel.model import Compression, Image, Operation, OperationState, SourceFormat, Upload

__all__ = ["UploadCalls"]

_PATCH_BYTES = 256 << 20
_TUS = {"tus-resumable": "1.0.0"}
_OFFSET_TYPE = "application/offset+octet-stream"
_PATCH_ANSWER_S = 240.0
_TRY_AGAIN = {"unavailable", "timed-out", "checksum-mismatch", "request-timeout", "conflict"}


class UploadCalls(ImageCalls):
    """Uploads of images."""

    def upload_image(
        self,
        image_id: str,
        file: Path,
        *,
        datastore: str,
        image_format: SourceFormat | str | None = None,
        compression: Compression | None = None,
        sha256: str | None = None,
        wait_s: float = 300.0,
        on_bytes: OnBytes | None = None,
    ) -> Image | Operation:
        """Upload a file in one request; an operation if verifying it takes longer than `wait_s`.

        Without a format, the host detects it.
        """
        digest = sha256 or file_sha256(file)
        answer = self.transport.send(
            "PUT",
            f"/v1/images/{image_id}",
            parameters={**_described(datastore, image_format, compression, digest), "wait": wait_s},
            content=file_parts(file, on_bytes),
            headers={
                **CREATE,
                "content-length": str(file_size(file)),
                "content-type": "application/octet-stream",
            },
            wait_s=wait_s,
        )
        return answer.read(Operation) if answer.status == 202 else answer.read(Image)

    def uploads(self, **query: Unpack[UploadListQuery]) -> Iterator[Upload]:
        """All unfinished resumable uploads."""
        return self._all("/v1/uploads", PageOf[Upload], query)

    def upload(self, upload_id: str) -> Upload:
        """One resumable upload."""
        return self.transport.send("GET", f"/v1/uploads/{upload_id}").read(Upload)

    def create_upload(
        self,
        image_id: str,
        size_bytes: int,
        *,
        datastore: str,
        image_format: SourceFormat | str | None = None,
        compression: Compression | None = None,
        sha256: str | None = None,
    ) -> str:
        """Start a resumable upload (tus 1.0); its ID."""
        values = {"image": image_id, **_described(datastore, image_format, compression, sha256)}
        metadata = ",".join(
            f"{name} {base64.b64encode(value.encode()).decode('ascii')}"
            for name, value in values.items()
            if value is not None
        )
        answer = self.transport.send(
            "POST",
            "/v1/uploads",
            headers={**_TUS, "upload-length": str(size_bytes), "upload-metadata": metadata},
        )
        return (answer.location or "").rpartition("/")[2]

    def delete_upload(self, upload_id: str) -> None:
        """Delete an unfinished upload."""
        self.transport.send("DELETE", f"/v1/uploads/{upload_id}", headers=_TUS)

    def resumable_upload(
        self,
        image_id: str,
        file: Path,
        *,
        datastore: str,
        image_format: SourceFormat | str | None = None,
        compression: Compression | None = None,
        sha256: str | None = None,
        on_offset: Callable[[int], None] | None = None,
        pause_s: float = POLL_S,
    ) -> Image:
        """Upload a file in parts, resuming after interruptions, and wait for the image.

        An unfinished upload of the same image, size and digest is resumed. `on_offset` is called
        with the number of bytes that the host has. After a ClientError, they stay there for a day.
        """
        digest = sha256 or file_sha256(file)
        size = file_size(file)
        upload_id = next(
            (
                upload.id
                for upload in self.uploads()
                if (upload.spec.image, upload.spec.size_bytes, upload.spec.sha256)
                == (image_id, size, digest)
            ),
            None,
        ) or self.create_upload(
            image_id,
            size,
            datastore=datastore,
            image_format=image_format,
            compression=compression,
            sha256=digest,
        )
        retries = Retries(pause_s)
        offset = -1
        while True:
            try:
                now = self.upload(upload_id).status
                if now.offset_bytes > offset:
                    retries.succeeded()
                offset = now.offset_bytes
                if on_offset is not None:
                    on_offset(offset)
                if now.operation is not None:
                    return self._imported(image_id, now.operation)
                operation = self._send_part(upload_id, file, offset, size, on_offset)
                if operation is not None:
                    return self._imported(image_id, operation)
            except (UnreachableError, RefusedError) as error:
                if isinstance(error, RefusedError):
                    if error.code == "not-found":
                        return self._after_restart(image_id, digest, error)
                    if error.code not in _TRY_AGAIN:
                        raise
                retries.failed()

    def _send_part(
        self,
        upload_id: str,
        file: Path,
        offset: int,
        size: int,
        on_offset: Callable[[int], None] | None,
    ) -> str | None:
        """One PATCH; after the last one, the ID of the operation that creates the image."""
        length = min(_PATCH_BYTES, size - offset)
        sent = offset

        def sent_more(count: int) -> None:
            nonlocal sent
            sent += count
            if on_offset is not None:
                on_offset(sent)

        answer = self.transport.send(
            "PATCH",
            f"/v1/uploads/{upload_id}",
            content=file_parts(file, sent_more, offset, length),
            headers={
                **_TUS,
                "upload-offset": str(offset),
                "content-length": str(length),
                "content-type": _OFFSET_TYPE,
            },
            wait_s=_PATCH_ANSWER_S,
        )
        return answer.header("mica-operation")

    def _imported(self, image_id: str, operation_id: str) -> Image:
        operation = self.operation(operation_id)
        if operation.state is not OperationState.SUCCEEDED:
            self.wait(operation, timeout_s=24 * 3600.0)
        return self.image(image_id)

    def _after_restart(self, image_id: str, digest: str, gone: RefusedError) -> Image:
        """The image, if the host has finished it meanwhile; otherwise raises `gone`."""
        try:
            image = self.image(image_id)
        except RefusedError:
            raise gone from None
        origin = image.status.origin
        if origin is None or origin.sha256 != digest:
            raise gone
        return image


def _described(
    datastore: str,
    image_format: SourceFormat | str | None,
    compression: Compression | None,
    sha256: str | None,
) -> dict[str, str | None]:
    return {
        "datastore": datastore,
        "format": None if image_format is None else SourceFormat(image_format).value,
        "compression": None if compression is None else compression.value,
        "sha256": sha256,
    }
