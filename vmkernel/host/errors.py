"""Failures of the host below us.

MicaError
  HostError              the host refused or failed to do something
    CommandError         a program failed, ran out of time or wrote too much
  DatastoreFullError     a datastore has too little space for what was asked for
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from vmkernel.host.folder import UnsafeFileError
from vmkernel.model import ErrorCode, FieldError, MicaError

__all__ = ["CommandError", "DatastoreFullError", "HostError", "from_os_error", "naming_datastore"]

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class HostError(MicaError):
    """The host refused or failed to do something; `unavailable` unless a better code is known."""

    def __init__(self, detail: str, code: ErrorCode = ErrorCode.UNAVAILABLE) -> None:
        super().__init__(code, detail)


class CommandError(HostError):
    """A program that failed, with what is needed to run it again by hand."""

    def __init__(
        self,
        detail: str,
        *,
        replay: str,
        returncode: int | None,
        output: str,
        code: ErrorCode = ErrorCode.UNAVAILABLE,
    ) -> None:
        super().__init__(detail, code)
        self.replay = replay
        """The command as text for a shell on a machine that has one."""
        self.returncode = returncode
        """None if it was killed for exceeding its time or output."""
        self.output = output
        """The end of what it wrote to stderr (or stdout)."""


class DatastoreFullError(MicaError):
    """Too little space: names the datastore and what would free space there."""

    def __init__(self, what: str, *, fields: tuple[str, ...] = ()) -> None:
        """`what` ends with the datastore; `fields` are pointers to the fields that
        need the space.
        """
        detail = (
            f"{what}; delete volumes, images or snapshots there, move some to another datastore,"
            " or grow it."
        )
        super().__init__(
            ErrorCode.INSUFFICIENT_SPACE,
            detail,
            fields=tuple(FieldError(pointer=pointer, detail=detail) for pointer in fields),
        )


@contextmanager
def naming_datastore(datastore_id: str) -> Iterator[None]:
    """If anything inside fails for lack of space, the error names this datastore. See
    DatastoreFullError.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise DatastoreFullError(f"No space is left on datastore {datastore_id}") from error
    except DatastoreFullError:
        raise
    except MicaError as error:
        problem = error.problem
        if problem.code is not ErrorCode.INSUFFICIENT_SPACE:
            raise
        raise DatastoreFullError(
            f"{problem.detail.rstrip('.')} on datastore {datastore_id}",
            fields=tuple(field.pointer for field in problem.fields),
        ) from error


def from_os_error(error: OSError, what: str) -> HostError:
    """A HostError for a failed system call; `what` names the object and what was tried."""
    if isinstance(error, UnsafeFileError):
        return HostError(f"{what}: {error.strerror}.", ErrorCode.CONFLICT)
    if error.errno in _NO_SPACE:
        return HostError(f"{what}: no space is left.", ErrorCode.INSUFFICIENT_SPACE)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return HostError(f"{what}: {reason}.")
