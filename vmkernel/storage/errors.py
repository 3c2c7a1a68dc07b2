"""Failures of storage.

MicaError
  StorageError           a datastore, volume or image can't be used as asked
    DatastoreMissing     its disk or directory is not there now
"""

from __future__ import annotations

from vmkernel.model import ErrorCode, MicaError

__all__ = ["DatastoreMissing", "StorageError"]


class StorageError(MicaError):
    """A datastore, volume or image can't be used as asked."""


class DatastoreMissing(StorageError):  # noqa: N818 - a state, told as a failure
    """The place of a datastore is not there now; it may come back."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, detail)
