"""The errors of the inputs.

InputError
├── CommandError  a tool of the host failed; shows the command and its last lines
├── GoneError     a locked file has left the mirror and isn't in the archive either
├── HashError     the received file is not the locked one
├── LockError     a lock file can't be read or used
└── MirrorError   no Debian mirror is known, or it doesn't answer
"""

import shlex
from collections.abc import Sequence

__all__ = [
    "CommandError",
    "GoneError",
    "HashError",
    "InputError",
    "LockError",
    "MirrorError",
]


class InputError(Exception):
    """Something taken from outside is missing or wrong."""


class CommandError(InputError):
    """A program of the host failed."""

    def __init__(self, argv: Sequence[str], returncode: int | None, output: str) -> None:
        tail = "\n".join(output.strip().splitlines()[-15:])
        how = "took too long" if returncode is None else f"failed with status {returncode}"
        super().__init__(f"`{shlex.join(argv)}` {how}:\n{tail}")
        self.returncode = returncode
        self.output = output


class HashError(InputError):
    """A file differs from its locked SHA-256."""


class LockError(InputError):
    """A lock file can't be read or used."""


class MirrorError(InputError):
    """No Debian mirror is known, or it doesn't answer."""


class GoneError(InputError):
    """A locked file has left the mirror."""
