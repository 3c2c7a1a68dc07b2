"""Local files as the bytes of a request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from remote_api.client.errors import ConflictError
from remote_api.client.sdk.base import OnBytes

__all__ = ["file_parts", "file_sha256", "file_size"]

_PART_BYTES = 1 << 18


def file_sha256(file: Path, on_bytes: OnBytes | None = None) -> str:
    """The digest of a file. Raises ConflictError if it can't be read."""
    digest = hashlib.sha256()
    for part in file_parts(file, on_bytes):
        digest.update(part)
    return digest.hexdigest()


def file_size(file: Path) -> int:
    """How many bytes a file has. Raises ConflictError if it can't be read."""
    try:
        return file.stat().st_size
    except OSError as error:
        raise ConflictError(f"can't read {file}: {error.strerror}") from error


def file_parts(
    file: Path, on_bytes: OnBytes | None, offset: int = 0, length: int | None = None
) -> Iterator[bytes]:
    """The bytes of a file, or of a part of it. Raises ConflictError if it can't be read."""
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
        raise ConflictError(f"can't read {file}: {error.strerror}") from error
