"""The last messages of each VM's programs: QEMU, and the TPM's emulator beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmkernel.host.output_pipe import OutputPipe
from vmkernel.text import clean

__all__ = ["RunLogs"]

_LINES = 3
_LINE_MAX = 300


class RunLogs:
    """The pipes of the VMs that run, by their paths."""

    def __init__(self) -> None:
        self._pipes: dict[Path, OutputPipe] = {}

    @contextmanager
    def begin(self, path: Path) -> Iterator[int]:
        """Begin a new log for one start: the descriptor for its programs, which is closed at the
        end of the context.
        """
        self.end(path)
        self._pipes[path] = pipe = OutputPipe.make(path)
        fd = pipe.writer()
        try:
            yield fd
        finally:
            os.close(fd)

    def last_lines(self, path: Path, count: int = _LINES) -> str:
        """The last lines, on one line and without control characters."""
        pipe = self._pipes.get(path)
        if pipe is None:
            pipe = OutputPipe.find(path)
            if pipe is None:
                return ""
            self._pipes[path] = pipe
        lines = pipe.tail().decode(errors="replace").splitlines()
        said = [line for line in (clean(line, _LINE_MAX) for line in lines) if line]
        return " / ".join(said[-count:])

    def follow(self, path: Path) -> None:
        """Continue reading what an earlier process of ours has begun to read."""
        self.last_lines(path)

    def end(self, path: Path) -> None:
        """The VM's programs have ended; their last messages are kept."""
        pipe = self._pipes.pop(path, None)
        if pipe is not None:
            pipe.close()

    def close(self) -> None:
        """Let all go; the programs write on."""
        for path in list(self._pipes):
            self.end(path)
