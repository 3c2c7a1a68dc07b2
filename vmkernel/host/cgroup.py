"""Control groups (version 2), by reading and writing their files."""

from __future__ import annotations

import errno
from pathlib import Path

from vmkernel.host.sysfs import PROC, read_text

__all__ = ["Cgroup"]

_ROOT = Path("/sys/fs/cgroup")


class Cgroup:
    """One group; it may be missing."""

    def __init__(self, path: str, *, root: Path = _ROOT) -> None:
        self._folder = root / path.lstrip("/")

    def populated(self) -> bool:
        """True while any process is in it. OSError if that can't be read: guessing "no" may start a
        VM twice.
        """
        try:
            events = (self._folder / "cgroup.events").read_text()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
            return False
        return "populated 1" in events.splitlines()

    def kill(self) -> None:
        try:
            (self._folder / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            return

    def processes(self, program: str) -> tuple[int, ...]:
        """The ids of its processes, including those of child groups, that run `program`."""
        found = []
        for file in self._folder.glob("**/cgroup.procs"):
            for pid in (read_text(file) or "").split():
                # The kernel keeps 15 octets of a name; threads may have names of their own.
                if read_text(PROC / pid / "comm") == program[:15]:
                    found.append(int(pid))
        return tuple(found)

    def add(self, pid: int) -> None:
        """Move a process into it. OSError if the group is missing or the process has ended."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def memory_bytes(self) -> int | None:
        """The memory it uses now."""
        try:
            return int((self._folder / "memory.current").read_text())
        except (OSError, ValueError):
            return None
