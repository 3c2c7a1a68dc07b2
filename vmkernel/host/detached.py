"""Processes that outlive this one: started here, found again by a lock that they hold.

The child inherits an open descriptor of a lock file on which an exclusive lock was taken. The lock
belongs to that open file, so it is held exactly as long as the child lives, and no other process
can be mistaken for it: while the lock is held, the process id written in the file is the holder's.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmkernel.host.errors import HostError, from_os_error
from vmkernel.host.runner import FIXED_ENVIRONMENT
from vmkernel.model import ErrorCode

__all__ = ["Detached", "find_detached", "start_detached"]


@dataclass
class Detached:
    """A process that holds its lock, or held it."""

    pid: int
    pidfd: int
    child: subprocess.Popen[bytes] | None
    """None if an earlier process of ours started it."""

    async def wait(self, timeout_s: float) -> bool:
        """True once it has ended; False if the time is over."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        fd = os.dup(self.pidfd)
        loop.add_reader(fd, lambda: None if ended.done() else ended.set_result(None))
        try:
            async with asyncio.timeout(timeout_s):
                await ended
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        if self.child is not None:
            self.child.poll()
        return True

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def how_it_ended(self) -> str | None:
        """In words, if it was our child and has ended."""
        code = None if self.child is None else self.child.poll()
        if code is None:
            return None
        return f"ended by signal {-code}" if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """Close our descriptors; the process continues."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def start_detached(
    argv: Sequence[str],
    *,
    lock: Path,
    log: int,
    pass_fds: Sequence[int],
    environment: Mapping[str, str] = FIXED_ENVIRONMENT,
) -> Detached:
    """Start a program in its own session, with its output in the descriptor `log`."""
    lock_fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(
                f"{lock} is held: the process runs already.", ErrorCode.CONFLICT
            ) from error
        os.truncate(lock_fd, 0)
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environment),
                cwd="/",
                pass_fds=(lock_fd, *pass_fds),
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            raise from_os_error(error, f"{argv[0]} can't be started") from error
        os.pwrite(lock_fd, f"{child.pid}\n".encode(), 0)
        return Detached(child.pid, os.pidfd_open(child.pid), child)
    finally:
        os.close(lock_fd)


def find_detached(lock: Path) -> Detached | None:
    """The process that holds the lock; None if none does."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if not _held(fd):
            return None
        text = os.pread(fd, 32, 0).strip()
        # Empty where an earlier process of ours was killed right after it had started this one.
        pid = int(text) if text.isdigit() else _holder(fd)
        if pid is None:
            return None
        try:
            found = Detached(pid, os.pidfd_open(pid), None)
        except ProcessLookupError:
            return None
        if not _held(fd):
            found.close()
            return None
        return found
    finally:
        os.close(fd)


def _holder(fd: int) -> int | None:
    """A process of ours, other than this one, that has the lock's file open."""
    lock = os.fstat(fd)
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # gone, or somebody else's
            for link in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    found = link.stat()
                    if (found.st_dev, found.st_ino) == (lock.st_dev, lock.st_ino):
                        return int(folder.name)
    return None


def _held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
