"""What is known of operations, in a file that outlasts this process but not the host's power.

RUN_DIR/operations.jsonl: a line for each operation when it begins and when it ends; the last one of
an operation counts. The file is rewritten, with what is still known, once it has many lines.
Nothing of it goes to the stick: after power-off nothing runs, and what was done shows in the
objects themselves.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.model import Operation

__all__ = ["Journal"]

_log = logging.getLogger(__name__)

_MAX_LINES = 5000
"""Five for each operation of a full history: rewriting it is rare, and takes some ms."""
_MAX_BYTES = 32 << 20
"""Longer than any that this writes: a failure's text has a few KiB at most."""


class Journal:
    """Owned by the event loop's thread. What can't be written is lost with this process alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._broken = False

    def load(self) -> list[Operation]:
        """What an earlier process knew, oldest first; lines that can't be read are left out."""
        try:
            with self._path.open("rb") as file:
                data = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.warning("the operations of before can't be read: %s", error)
            return []
        known: dict[str, Operation] = {}
        left_out = 0
        for line in data.split(b"\n"):
            if not line:
                continue
            try:
                operation = decode_json(line, Operation)
            except UndecodableError:
                left_out += 1
                continue
            known[operation.id] = operation
        if left_out:
            _log.warning("%d lines of the record of operations can't be read", left_out)
        return list(known.values())

    def note(self, operation: Operation) -> None:
        """Add how an operation is now."""
        self._write(msgspec.json.encode(operation) + b"\n", "ab")
        self._lines += 1

    @property
    def is_long(self) -> bool:
        """True once it should be rewritten."""
        return self._lines >= _MAX_LINES

    def replace(self, operations: Iterable[Operation]) -> None:
        """Write all that is known, in place of what is there."""
        lines = [msgspec.json.encode(operation) + b"\n" for operation in operations]
        new = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(b"".join(lines))
            new.replace(self._path)
        except OSError as error:
            self._warn(error)
        self._lines = len(lines)

    def _write(self, data: bytes, mode: str) -> None:
        try:
            with self._path.open(mode) as file:
                file.write(data)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._broken:
            _log.warning("operations can't be kept over a restart: %s", error)
        self._broken = True
