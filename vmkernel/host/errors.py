"""Failures of the host below us.

MicaError
  HostError        the host refused or failed something
    CommandError   a program failed, ran out of time or wrote too much
"""

from __future__ import annotations

import errno
import os

from vmkernel.host.folder import UnsafeFileError
from vmkernel.model import ErrorCode, MicaError

__all__ = ["CommandError", "HostError", "from_os_error"]

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class HostError(MicaError):
    """The host refused or failed something; `unavailable` unless a better code is known."""

    def __init__(self, detail: str, code: ErrorCode = ErrorCode.UNAVAILABLE) -> None:
        super().__init__(code, detail)


class CommandError(HostError):
    """A program that did not end well, with what is needed to run it again by hand."""

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
        """None where it was killed for its time or its output."""
        self.output = output
        """The end of what it wrote to stderr (or stdout)."""


def from_os_error(error: OSError, what: str) -> HostError:
    """A HostError for a failed system call; `what` names the object and what was tried."""
    if isinstance(error, UnsafeFileError):
        return HostError(f"{what}: {error.strerror}.", ErrorCode.CONFLICT)
    if error.errno in _NO_SPACE:
        return HostError(f"{what}: no space is left.", ErrorCode.INSUFFICIENT_SPACE)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return HostError(f"{what}: {reason}.")
