"""Images: how they come (uploads, pulls, captures) and go (downloads)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from remote_api.client.errors import (
    ConflictError,
    RefusedError,
    TimedOutError,
    UnexpectedError,
    UnreachableError,
)
from remote_api.client.sdk.base import CREATE, POLL_S, Calls, OnBytes
from remote_api.schema import CaptureBody, ImagePage, PullBody, UploadPage
from vmkernel.model import (
    Compression,
    DataMap,
    Image,
    ImageCapture,
    ImagePull,
    Operation,
    OperationState,
    SourceFormat,
    Upload,
)

__all__ = ["ImageCalls", "file_sha256"]

_PART_BYTES = 1 << 18
_PATCH_BYTES = 256 << 20
_RETRIES = 8
_LONGEST_PAUSE_S = 30.0
_TUS = {"tus-resumable": "1.0.0"}
_OFFSET_TYPE = "application/offset+octet-stream"
_PATCH_ANSWER_S = 240.0
_TRY_AGAIN = {"unavailable", "timed-out", "checksum-mismatch", "request-timeout"}


class ImageCalls(Calls):
    """Images and resumable uploads."""

    def images(self, datastore: str | None = None) -> Iterator[Image]:
        """All images."""
        return self._all("/v1/images", ImagePage, datastore=datastore)

    def image(self, image_id: str) -> Image:
        """One image."""
        return self.transport.send("GET", f"/v1/images/{image_id}").read(Image)

    def delete_image(self, image_id: str) -> None:
        """Delete an image."""
        self.transport.send("DELETE", f"/v1/images/{image_id}")

    def pull_image(self, image_id: str, pull: ImagePull) -> Operation:
        """Let the host fetch an image from a server."""
        return self._operation("POST", f"/v1/images/{image_id}/pull", body=PullBody(spec=pull))

    def capture_image(self, image_id: str, capture: ImageCapture) -> Operation:
        """Make an image of a volume that no running VM has."""
        body = CaptureBody(spec=capture)
        return self._operation("POST", f"/v1/images/{image_id}/capture", body=body)

    # --- up -----------------------------------------------------------------------------------

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
        """Upload a file in one request; an operation where it takes longer than `wait_s` to prove.

        Without a format the header has to tell it.
        """
        digest = sha256 or file_sha256(file)
        answer = self.transport.send(
            "PUT",
            f"/v1/images/{image_id}",
            parameters={
                "datastore": datastore,
                "format": None if image_format is None else SourceFormat(image_format).value,
                "compression": None if compression is None else compression.value,
                "sha256": digest,
                "wait": wait_s,
            },
            content=_parts(file, on_bytes),
            headers={
                **CREATE,
                "content-length": str(_size(file)),
                "content-type": "application/octet-stream",
            },
            wait_s=wait_s,
        )
        return answer.read(Operation) if answer.status == 202 else answer.read(Image)

    def uploads(self) -> Iterator[Upload]:
        """The resumable uploads that are under way."""
        return self._all("/v1/uploads", UploadPage)

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
        """Begin a resumable upload (tus 1.0); its id."""
        values = {
            "image": image_id,
            "datastore": datastore,
            "format": None if image_format is None else SourceFormat(image_format).value,
            "compression": None if compression is None else compression.value,
            "sha256": sha256,
        }
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
        """Give a resumable upload up."""
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
        """Upload a file part by part, going on after what breaks off, and wait for the image.

        An upload of the same image, size and digest that is on the host already is continued.
        `on_offset` is told how many bytes are there. Raises ClientError where it can't be done;
        what has come stays on the host for a day.
        """
        digest = sha256 or file_sha256(file)
        size = _size(file)
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
        failures = 0
        offset = -1
        while True:
            try:
                now = self.upload(upload_id).status
                failures = 0 if now.offset_bytes > offset else failures
                offset = now.offset_bytes
                if on_offset is not None:
                    on_offset(offset)
                if now.operation is not None:
                    return self._imported(image_id, now.operation)
                operation = self._send_part(upload_id, file, offset, size, on_offset)
                if operation is not None:
                    return self._imported(image_id, operation)
            except (UnreachableError, TimedOutError, RefusedError) as error:
                if isinstance(error, RefusedError) and error.code == "not-found":
                    return self._after_restart(image_id, digest, error)
                again = not isinstance(error, RefusedError) or error.code in _TRY_AGAIN
                conflict = isinstance(error, RefusedError) and error.code == "conflict"
                failures += 1
                if failures > _RETRIES or not (again or conflict):
                    raise
                time.sleep(min(pause_s * 2 ** (failures - 1), _LONGEST_PAUSE_S))

    def _send_part(
        self,
        upload_id: str,
        file: Path,
        offset: int,
        size: int,
        on_offset: Callable[[int], None] | None,
    ) -> str | None:
        """One PATCH; the id of the operation that makes the image, where it was the last one."""
        length = min(_PATCH_BYTES, size - offset)
        sent = offset

        def told(count: int) -> None:
            nonlocal sent
            sent += count
            if on_offset is not None:
                on_offset(sent)

        answer = self.transport.send(
            "PATCH",
            f"/v1/uploads/{upload_id}",
            content=_parts(file, told, offset, length),
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
        """The host has made the image meanwhile, or it has not."""
        try:
            image = self.image(image_id)
        except RefusedError:
            raise gone from None
        origin = image.status.origin
        if origin is None or origin.sha256 != digest:
            raise gone
        return image

    # --- down ---------------------------------------------------------------------------------

    def download_image(
        self, image_id: str, file: Path | BinaryIO, *, on_bytes: OnBytes | None = None
    ) -> Image:
        """Download an image into a new file, going on after what breaks off; the digest is proven.

        A stream gets the bytes in order. Raises ConflictError if the file exists.
        """
        image = self.image(image_id)
        self._download(f"/v1/images/{image_id}/data", file, on_bytes, image.spec.sha256)
        return image

    def volume_size(self, volume_id: str) -> int:
        """The bytes of a volume's file; RefusedError (`conflict`) where it is not all of it."""
        # A refusal of HEAD has no body, and so no reason.
        path = f"/v1/volumes/{volume_id}/data"
        answer = self.transport.send("GET", path, headers={"range": "bytes=0-0"})
        return int((answer.header("content-range") or "").rpartition("/")[2] or len(answer.body))

    def download_volume(
        self, volume_id: str, file: Path | BinaryIO, *, on_bytes: OnBytes | None = None
    ) -> None:
        """Download the file of a volume that no running VM has, in the format that it has."""
        self._download(f"/v1/volumes/{volume_id}/data", file, on_bytes, None)

    def _download(
        self, path: str, file: Path | BinaryIO, on_bytes: OnBytes | None, sha256: str | None
    ) -> None:
        if not isinstance(file, Path):
            self._to_stream(path, file, on_bytes, sha256)
            return
        part = file.with_name(f"{file.name}.part")
        if file.exists():
            raise ConflictError(f"{file} exists already; name another file")
        try:
            with part.open("w+b") as target:
                fd = target.fileno()
                end = self._fetch_data(path, fd, on_bytes)
                os.ftruncate(fd, end)
                os.fsync(target.fileno())
            if sha256 is not None and (found := file_sha256(part)) != sha256:
                raise UnexpectedError(
                    f"{file.name} is damaged: its SHA-256 is {found}, not {sha256};"
                    " download it again"
                )
            part.rename(file)
        except OSError as error:
            raise ConflictError(f"can't write {file}: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def _to_stream(
        self, path: str, stream: BinaryIO, on_bytes: OnBytes | None, sha256: str | None
    ) -> None:
        """The bytes in order; the digest is proven at their end."""
        digest = hashlib.sha256()
        there = 0

        def take(data: bytes, at: int) -> None:
            nonlocal there
            if at != there:
                raise UnexpectedError("the file changed during the download; download it again")
            stream.write(data)
            digest.update(data)
            there += len(data)

        self._fetch(path, take, on_bytes)
        stream.flush()
        if sha256 is not None and digest.hexdigest() != sha256:
            raise UnexpectedError(
                f"the output is damaged: its SHA-256 is {digest.hexdigest()}, not {sha256}"
            )

    def _fetch_data(self, path: str, target: int, on_bytes: OnBytes | None) -> int:
        """Write the data alone into a new file, so that a hole stays one; all of it, if that
        changes meanwhile. How many bytes there are."""

        def write(data: bytes, at: int) -> None:
            left = memoryview(data)
            while left:
                count = os.pwrite(target, left, at)
                left, at = left[count:], at + count

        begun = self._map(path, 0)
        part: DataMap | None = begun
        done = 0
        while part is not None:
            for extent in part.extents:
                end = extent.offset + extent.length_bytes
                if on_bytes is not None:
                    on_bytes(extent.offset - done)
                wanted = _Part(extent.offset, end, f'"{begun.etag}"')
                try:
                    self._fetch(path, write, on_bytes, wanted)
                except _ChangedError:
                    os.ftruncate(target, 0)
                    return self._fetch(path, write, None)
                done = end
            part = None if part.next_offset is None else self._map(path, part.next_offset)
        if on_bytes is not None:
            on_bytes(begun.size_bytes - done)
        return begun.size_bytes

    def _map(self, path: str, offset: int) -> DataMap:
        where = f"{path.removesuffix('/data')}/extents"
        return self.transport.send("GET", where, parameters={"offset": offset}).read(DataMap)

    def _fetch(
        self,
        path: str,
        take: Callable[[bytes, int], object],
        on_bytes: OnBytes | None,
        part: _Part | None = None,
    ) -> int:
        """Hand over bytes with their offsets, over interruptions: all of them, or a part of the
        file as it was. Where they end. Raises _ChangedError for a part of a file that is another
        one now; all of a file that changes is handed over from its beginning again."""
        done, end, etag = (0, -1, None) if part is None else (part.start, part.end, part.etag)
        failures = 0
        while done != end:
            headers = {"accept": "*/*"}
            if etag is not None:
                headers |= {"range": f"bytes={done}-{end - 1}", "if-range": etag}
            try:
                with self.transport.download(path, headers=headers) as answer:
                    if answer.status == 200:
                        if part is not None:
                            raise _ChangedError
                        if answer.length < 0:
                            raise UnexpectedError(f"the host's answer for {path} has no length")
                        done, end, etag = 0, answer.length, answer.etag
                    for data in answer.parts:
                        take(data, done)
                        done += len(data)
                        failures = 0
                        if on_bytes is not None:
                            on_bytes(len(data))
            except (UnreachableError, TimedOutError):
                failures += 1
                if failures > _RETRIES:
                    raise
                time.sleep(min(0.5 * 2 ** (failures - 1), _LONGEST_PAUSE_S))
        return done


@dataclass(frozen=True)
class _Part:
    """Of the file that has this entity tag; `end` is the offset after its last byte."""

    start: int
    end: int
    etag: str


class _ChangedError(Exception):
    """The file is another one than at the beginning."""


def file_sha256(file: Path, on_bytes: OnBytes | None = None) -> str:
    """The digest of a file. Raises ConflictError where it can't be read."""
    digest = hashlib.sha256()
    for part in _parts(file, on_bytes):
        digest.update(part)
    return digest.hexdigest()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise ConflictError(f"{file} can't be read: {error.strerror}") from error


def _parts(
    file: Path, on_bytes: OnBytes | None, offset: int = 0, length: int | None = None
) -> Iterator[bytes]:
    left = length
    try:
        with file.open("rb") as source:
            source.seek(offset)
            while left != 0 and (
                part := source.read(_PART_BYTES if left is None else min(left, _PART_BYTES))
            ):
                yield part
                left = None if left is None else left - len(part)
                if on_bytes is not None:
                    on_bytes(len(part))
    except OSError as error:
        raise ConflictError(f"{file} can't be read: {error.strerror}") from error
