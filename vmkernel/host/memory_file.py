"""A nameless file in memory (memfd_create(2)), to be filled by another process."""

from __future__ import annotations

import os
from types import TracebackType

__all__ = ["MemoryFile"]


class MemoryFile:
    """A context manager; the file vanishes with its last descriptor."""

    def __init__(self, name: str) -> None:
        self._fds = [os.memfd_create(name, os.MFD_CLOEXEC)]

    def __enter__(self) -> MemoryFile:
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def writer(self) -> int:
        """A descriptor that can only write, for the other process; we still own and close it."""
        fd = os.open(f"/proc/self/fd/{self._fds[0]}", os.O_WRONLY | os.O_CLOEXEC)
        self._fds.append(fd)
        return fd

    def read(self, limit: int) -> bytes:
        """What it holds by now. ValueError if that is more than `limit` bytes."""
        size = os.fstat(self._fds[0]).st_size
        if size > limit:
            raise ValueError(f"{size} bytes, and {limit} are allowed")
        return os.pread(self._fds[0], size, 0)
