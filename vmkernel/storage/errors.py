"""Failures of storage.

MicaError
  StorageError           a datastore, volume or image can't be used as asked
    DatastoreMissing     its disk or directory is not there now
    BrieflyBusy          Mica itself is at it, for a moment: see patience.py
"""

from __future__ import annotations

from collections.abc import Sequence

from vmkernel.model import ErrorCode, MicaError

__all__ = ["BrieflyBusy", "DatastoreMissing", "StorageError", "volume_linked"]

_NAMED = 5
"""Linked volumes that a message names at most."""


class StorageError(MicaError):
    """A datastore, volume or image can't be used as asked."""


class DatastoreMissing(StorageError):  # noqa: N818 - a state, told as a failure
    """The disk or directory of a datastore is missing now; it may come back."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, detail)


class BrieflyBusy(StorageError):  # noqa: N818 - a state, told as a failure
    """Something is done to an object that will have ended in a moment."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.CONFLICT, detail)


def volume_linked(volume: str, children: Sequence[str]) -> StorageError:
    """The refusal to change or delete a volume that others are linked to."""
    named = ", ".join(children[:_NAMED]) + (" …" if len(children) > _NAMED else "")
    return StorageError(
        ErrorCode.IN_USE,
        f"Volume {volume} must stay as it is: {len(children)} linked to it ({named})."
        " Delete or flatten these first.",
    )
