"""Downloads of images and volumes, which are resumed after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from remote_api.client.errors import ConflictError, UnexpectedError, UnreachableError
from remote_api.client.sdk.base import Calls, OnBytes
from remote_api.client.sdk.files import file_sha256
from remote_api.client.sdk.retries import Retries
from vmkernel.model import DataMap

__all__ = ["DownloadCalls"]


class DownloadCalls(Calls):
    """Data of images and volumes, into files and streams."""

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
        """The bytes in order; the digest is verified at the end."""
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
        file as it was. The offset of their end. Raises _ChangedError for a part of a file that is
        another one now; all of a file that changes is handed over from its beginning again."""
        done, end, etag = (0, -1, None) if part is None else (part.start, part.end, part.etag)
        retries = Retries()
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
                        retries.succeeded()
                        if on_bytes is not None:
                            on_bytes(len(data))
            except UnreachableError:
                retries.failed()
        return done


@dataclass(frozen=True)
class _Part:
    """Of the file that has this entity tag; `end` is the offset after its last byte."""

    start: int
    end: int
    etag: str


class _ChangedError(Exception):
    """The file is another one than at the beginning."""
