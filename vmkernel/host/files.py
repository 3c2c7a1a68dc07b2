"""Files by their absolute paths, opened as safely as by `host/folder.py`: the folder is opened
once, no part of the path may be a symbolic link, and only regular files are opened. Functions that
are durable say so.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Collection
from pathlib import Path

from vmkernel.host.folder import (
    TEMP_PREFIX,
    FileFault,
    Folder,
    UnsafeFileError,
    copy_open,
    open_folder,
)

__all__ = [
    "RECORD_MAX_BYTES",
    "allocate",
    "allocated_bytes",
    "copy_durably",
    "create_file",
    "create_nameless",
    "exists",
    "free_bytes",
    "fsync_directory",
    "is_folder",
    "is_regular",
    "link",
    "make_directory",
    "move",
    "names",
    "open_regular",
    "read_limited",
    "reflink",
    "remove",
    "remove_half_written",
    "remove_tree",
    "rename_durably",
    "status",
    "sync_file",
    "unlink_durably",
    "write_durably",
    "write_lightly",
]

RECORD_MAX_BYTES = 1 << 20
"""The largest description that is kept in a file. Writers are limited to it too, so that whatever
was accepted can be read again."""
_FICLONE = 0x40049409
"""From linux/fs.h."""

_NO_REFLINK = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS)
_STAT_BLOCK = 512


# --- looking ----------------------------------------------------------------------------------


def status(path: Path) -> os.stat_result:
    """The status of the path itself, also of a link; FileNotFoundError if it doesn't exist."""
    with open_folder(path.parent) as folder:
        return folder.status(path.name)


def exists(path: Path) -> bool:
    """True if anything has that name."""
    try:
        status(path)
    except FileNotFoundError:
        return False
    except UnsafeFileError as error:
        if error.fault is FileFault.FOLDER:
            return False
        raise
    return True


def is_regular(path: Path) -> bool:
    """True for a regular file, not for a link to one."""
    try:
        return stat.S_ISREG(status(path).st_mode)
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """True for a folder, not for a link to one."""
    try:
        return stat.S_ISDIR(status(path).st_mode)
    except OSError:
        return False


def names(path: Path) -> list[str]:
    """The names in a folder, sorted."""
    with open_folder(path) as folder:
        return folder.names()


def allocated_bytes(path: Path) -> int:
    """The space that a file takes in its file system; 0 if it is missing."""
    try:
        return status(path).st_blocks * _STAT_BLOCK
    except OSError:
        return 0


def free_bytes(path: Path) -> tuple[int, int]:
    """Capacity and free bytes (to an ordinary user) of the file system that holds `path`."""
    with open_folder(path) as folder:
        figures = os.statvfs(folder.fileno())
    return figures.f_blocks * figures.f_frsize, figures.f_bavail * figures.f_frsize


# --- opening and reading ----------------------------------------------------------------------


def open_regular(
    path: Path,
    flags: int,
    *,
    limit: int | None = None,
    owners: Collection[int] | None = None,
    single: bool = False,
) -> int:
    """A descriptor of a regular file that exists; see `Folder.open_file`."""
    with open_folder(path.parent) as folder:
        return folder.open_file(path.name, flags, limit=limit, owners=owners, single=single)


def create_file(path: Path, mode: int = 0o600, flags: int = os.O_WRONLY) -> int:
    """A descriptor of a new, empty file; FileExistsError if the name is taken."""
    with open_folder(path.parent) as folder:
        return folder.create(path.name, mode, flags)


def create_nameless(folder: Path) -> int:
    """A descriptor of a new file without a name, which vanishes with its last descriptor."""
    with open_folder(folder) as opened:
        return opened.create_nameless()


def read_limited(path: Path, limit: int, *, owners: Collection[int] | None = None) -> bytes:
    """The content of a regular file of at most `limit` bytes."""
    with open_folder(path.parent) as folder:
        return folder.read(path.name, limit, owners=owners)


# --- writing ----------------------------------------------------------------------------------


def write_durably(
    path: Path, data: bytes, *, mode: int = 0o600, limit: int = RECORD_MAX_BYTES
) -> None:
    """Replace a file as a whole: after a crash it holds the old or the new content. If the new
    content is larger than readers accept: OSError, and the old content stays.
    """
    _refuse_large(path, data, limit)
    with open_folder(path.parent) as folder:
        folder.write(path.name, data, mode=mode)


def write_lightly(
    path: Path, data: bytes, *, mode: int = 0o600, limit: int = RECORD_MAX_BYTES
) -> None:
    """The same without flushing, for what need not survive the host."""
    _refuse_large(path, data, limit)
    temp = f".new-{path.name}"
    with open_folder(path.parent) as folder:
        with contextlib.suppress(FileNotFoundError):
            folder.remove(temp)
        with os.fdopen(folder.create(temp, mode), "wb") as file:
            file.write(data)
        folder.move(temp, folder, path.name)


def _refuse_large(path: Path, data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))


def copy_durably(
    source: Path,
    target: Path,
    limit: int,
    *,
    owners: Collection[int] | None = None,
) -> None:
    """Replace a file by a copy of another of at most `limit` bytes."""
    reading = open_regular(source, os.O_RDONLY, limit=limit, owners=owners)

    def pour(fd: int) -> None:
        copy_open(reading, fd, limit, source.name)

    try:
        with open_folder(target.parent) as folder:
            folder.fill(target.name, pour)
    finally:
        os.close(reading)


def reflink(source: Path, target: Path) -> bool:
    """Let `target`, an empty file, share all blocks of `source`; False, with `target` unchanged, if
    the file systems can't.
    """
    with contextlib.ExitStack() as opened:
        reading = open_regular(source, os.O_RDONLY)
        opened.callback(os.close, reading)
        writing = open_regular(target, os.O_WRONLY, limit=0, single=True)
        opened.callback(os.close, writing)
        try:
            fcntl.ioctl(writing, _FICLONE, reading)
        except OSError as error:
            if error.errno in _NO_REFLINK:
                return False
            raise
    return True


def allocate(fd: int, length: int) -> bool:
    """Reserve the blocks of a file; False if the file system can't, OSError if it is full."""
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


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    fd = open_regular(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- names ------------------------------------------------------------------------------------


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    with open_folder(path) as folder:
        folder.sync()


def move(source: Path, target: Path) -> None:
    """Rename a file, replacing any file of the new name; not durable by itself."""
    with open_folder(source.parent) as old, open_folder(target.parent) as new:
        old.move(source.name, new, target.name)


def link(source: Path, target: Path) -> None:
    """Give a regular file a second name; not durable by itself."""
    with open_folder(source.parent) as old, open_folder(target.parent) as new:
        if not stat.S_ISREG(old.status(source.name).st_mode):
            raise UnsafeFileError(FileFault.KIND, source.name)
        old.link(source.name, new, target.name)


def rename_durably(source: Path, target: Path) -> None:
    """Move a file within one file system, durable on return."""
    move(source, target)
    fsync_directory(target.parent)
    if source.parent != target.parent:
        fsync_directory(source.parent)


def remove(path: Path, *, missing_ok: bool = True) -> None:
    """Remove anything but a folder; not durable by itself."""
    try:
        with open_folder(path.parent) as folder:
            folder.remove(path.name)
    except FileNotFoundError:
        if not missing_ok:
            raise


def unlink_durably(path: Path) -> None:
    """Remove a file if it exists, durable on return."""
    with open_folder(path.parent) as folder:
        with contextlib.suppress(FileNotFoundError):
            folder.remove(path.name)
        folder.sync()


def remove_tree(path: Path) -> None:
    """Remove a folder, if it exists, with everything in it; no link is followed."""
    with contextlib.suppress(FileNotFoundError), open_folder(path.parent) as folder:
        folder.remove_tree(path.name)


def remove_half_written(path: Path, *, before_s: float, depth: int = 0) -> None:
    """Remove what a crash has left of files that were about to take others' places: those last
    written before a Unix time, in a folder and the folders in it, down to `depth`. What can't be
    removed now stays. OSError if the folder can't be opened.
    """
    with open_folder(path) as folder:
        _remove_half_written(folder, before_s, depth)


def _remove_half_written(folder: Folder, before_s: float, depth: int) -> None:
    for name in folder.names():
        with contextlib.suppress(OSError):
            found = folder.status(name)
            if name.startswith(TEMP_PREFIX):
                if stat.S_ISREG(found.st_mode) and found.st_mtime < before_s:
                    folder.remove(name)
            elif depth and stat.S_ISDIR(found.st_mode):
                with folder.subfolder(name) as below:
                    _remove_half_written(below, before_s, depth - 1)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory unless it exists; refuse anything else of that name."""
    with open_folder(path.parent) as folder:
        folder.make_subfolder(path.name, mode)
