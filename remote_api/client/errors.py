"""What can go wrong between a client and a host.

ClientError
  Unreachable            no connection, or it broke; the outcome of a change is unknown
    TimedOut             no answer in time
  Untrusted              the host's certificate is not the pinned one; nothing secret was sent
  Unexpected             not an answer of a Mica host, or of a newer API
  Refused                a problem document, which it carries
  OperationFailed        an operation failed or was cancelled; carries it
  Misuse                 invalid input: an address, a name, a size
  Declined               the user did not confirm
  Conflict               the state of the host, or of a file here, doesn't allow it
"""

from __future__ import annotations

from remote_api.schema import Problem
from vmkernel.model import Operation

__all__ = [
    "ClientError",
    "ConflictError",
    "DeclinedError",
    "MisuseError",
    "OperationFailedError",
    "RefusedError",
    "TimedOutError",
    "UnexpectedError",
    "UnreachableError",
    "UntrustedError",
]


class ClientError(Exception):
    """Base of all; `str()` is one readable line."""


class UnreachableError(ClientError):
    """No connection, or it broke before the answer; ask again whether a change was made."""


class TimedOutError(UnreachableError):
    """No answer in time; ask again whether a change was made."""


class UntrustedError(ClientError):
    """The host's certificate is not the pinned one; nothing secret was sent."""


class UnexpectedError(ClientError):
    """An answer that this client can't read."""


class MisuseError(ClientError):
    """The input is invalid, whatever the state of the host."""


class ConflictError(ClientError):
    """The state of the host, or of a file of this computer, doesn't allow it."""


class DeclinedError(ClientError):
    """The user did not confirm; nothing was done."""


class RefusedError(ClientError):
    """The host answered with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(_readable(problem.detail, [(e.pointer, e.detail) for e in problem.errors]))
        self.problem = problem

    @property
    def code(self) -> str:
        """The kind of problem, such as `not-found`."""
        return self.problem.code


class OperationFailedError(ClientError):
    """An operation failed or was cancelled."""

    def __init__(self, operation: Operation) -> None:
        what = f"{operation.kind} of {operation.subject.kind} {operation.subject.id}"
        if operation.error is None:
            super().__init__(f"{what} was {operation.state}")
        else:
            fields = [(e.pointer, e.detail) for e in operation.error.errors]
            super().__init__(f"{what} failed: {_readable(operation.error.detail, fields)}")
        self.operation = operation


def _readable(detail: str, fields: list[tuple[str, str]]) -> str:
    """A failure in one line, with the fields that the detail doesn't name itself."""
    rest = [f"{pointer}: {text}" for pointer, text in fields if text not in detail]
    named = [pointer for pointer, text in fields if text in detail and pointer not in detail]
    if named:
        rest.insert(0, ", ".join(pointer for pointer in named if pointer))
    return f"{detail} ({'; '.join(rest)})" if any(rest) else detail
