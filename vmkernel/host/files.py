"""Durable and careful file work: whole-file writes, reads that follow no link, free space."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import stat
from pathlib import Path

__all__ = [
    "allocate",
    "free_bytes",
    "fsync_directory",
    "make_directory",
    "open_regular",
    "read_limited",
    "reflink",
    "rename_durably",
    "unlink_durably",
    "write_durably",
]

_TEMP_PREFIX = ".tmp-"
_FICLONE = 0x40049409
"""From linux/fs.h."""

_NO_REFLINK = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file as a whole: after a crash it holds the old or the new content."""
    temp = path.parent / f"{_TEMP_PREFIX}{path.name}-{secrets.token_hex(4)}"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(fd, mode)  # whatever the umask
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        temp.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    fsync_directory(path.parent)


def open_regular(path: Path, flags: int) -> int:
    """Open a regular file that exists: no symbolic link is followed, and nothing else, such as a
    pipe that would wait for its other end, is opened in its place."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        os.set_blocking(fd, True)  # io_uring would answer EAGAIN where it has to read
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_limited(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; no symbolic link is followed."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return data


def reflink(source: Path, target: Path) -> bool:
    """Let `target`, an empty file, share all blocks of `source`; False where the file systems
    can't, and `target` is as it was."""
    with contextlib.ExitStack() as opened:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        opened.callback(os.close, reading)
        writing = os.open(target, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        opened.callback(os.close, writing)
        try:
            fcntl.ioctl(writing, _FICLONE, reading)
        except OSError as error:
            if error.errno in _NO_REFLINK:
                return False
            raise
    return True


def rename_durably(source: Path, target: Path) -> None:
    """Move a file within one file system, durable on return."""
    source.replace(target)
    fsync_directory(target.parent)
    if source.parent != target.parent:
        fsync_directory(source.parent)


def unlink_durably(path: Path) -> None:
    """Remove a file that may be gone already, durable on return."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    fsync_directory(path.parent)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory that may be there already; refuse anything else under its name."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=mode)
        path.chmod(mode)  # whatever the umask
        fsync_directory(path.parent)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise OSError(errno.ENOTDIR, "not a directory", str(path))


def free_bytes(path: Path) -> tuple[int, int]:
    """Capacity and free bytes (to an ordinary user) of the file system that holds `path`."""
    figures = os.statvfs(path)
    return figures.f_blocks * figures.f_frsize, figures.f_bavail * figures.f_frsize


def allocate(fd: int, length: int) -> bool:
    """Reserve the blocks of a file; False where the file system can't, OSError where full."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while libc.fallocate(fd, 0, 0, length) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise OSError(number, os.strerror(number))
    return True
