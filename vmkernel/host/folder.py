"""Files below an open folder: the only way to access what others may have put there.

A jailed process writes some of these files, and a datastore may come from anywhere. So nothing is
opened by a path that is walked twice: a folder is opened once, everything else is relative to its
descriptor, no symbolic link is followed anywhere, and what is opened is a regular file of a bounded
size or is refused. A pipe never blocks us, a device is never read.

OSError
  UnsafeFileError   what is there may not be opened
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import stat
from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path

from vmkernel import dry_run
from vmkernel.host.openat2 import open_beneath

__all__ = [
    "FileFault",
    "Folder",
    "TEMP_PREFIX",
    "UnsafeFileError",
    "copy_open",
    "open_folder",
]

TEMP_PREFIX = ".tmp-"
"""Begins the name of each file that takes another's place once it is whole."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NAMES_MAX = 1 << 17
"""Entries of one folder: far more than 1,000 VMs with their volumes need, and some
30 MiB of names."""
_REMOVED_MAX = 1 << 21
"""Entries that one removal deletes: others may be adding some at the same time."""
_CHUNK_BYTES = 1 << 20


class FileFault(StrEnum):
    """What is wrong with a file; the value completes the sentence "it ..."."""

    LINK = "is a symbolic link, or is behind one"
    KIND = "is not a regular file"
    FOLDER = "is not a folder of its own"
    OWNER = "belongs to another user"
    SIZE = "is too large"
    NAMES = "has a second name (a hard link)"
    MANY = "is a folder with too many entries"
    CHANGES = "is being changed"


_NUMBERS = {
    FileFault.LINK: errno.ELOOP,
    FileFault.KIND: errno.EINVAL,
    FileFault.FOLDER: errno.ENOTDIR,
    FileFault.OWNER: errno.EPERM,
    FileFault.SIZE: errno.EFBIG,
    FileFault.NAMES: errno.EMLINK,
    FileFault.MANY: errno.E2BIG,
    FileFault.CHANGES: errno.EBUSY,
}


class UnsafeFileError(OSError):
    """The file may not be opened; `strerror` says why, in words."""

    def __init__(self, fault: FileFault, name: str, more: str = "") -> None:
        super().__init__(_NUMBERS[fault], f"it {fault}{more}", name)
        self.fault = fault


def open_folder(path: Path) -> Folder:
    """A folder by its absolute path, no part of which may be a symbolic link."""
    if not path.is_absolute():
        raise OSError(errno.EINVAL, "not an absolute path", str(path))
    root = os.open("/", _FOLDER | os.O_CLOEXEC)
    below = str(path).lstrip("/") or "."
    try:
        try:
            fd = _opened(root, below, _FOLDER)
        except PermissionError:  # it may be passed through, and not be listed
            fd = _opened(root, below, _FOLDER | os.O_PATH)
        return Folder(fd, path.name)
    finally:
        os.close(root)


def copy_open(reading: int, writing: int, limit: int, name: str) -> int:
    """Copy an open file into another; returns the bytes copied, UnsafeFileError beyond `limit`."""
    done = 0
    while data := os.read(reading, min(_CHUNK_BYTES, limit + 1 - done)):
        done += len(data)
        if done > limit:
            raise UnsafeFileError(FileFault.SIZE, name, f" (more than {limit} bytes)")
        view = memoryview(data)
        while view:
            view = view[os.write(writing, view) :]
    return done


class Folder:
    """An open folder, until the block ends. Names have one part unless stated otherwise."""

    def __init__(self, fd: int, name: str = "") -> None:
        self._fd = fd
        self._name = name

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        return self._fd

    # --- looking ------------------------------------------------------------------------------

    def status(self, name: str) -> os.stat_result:
        """The status of an entry itself, also of a link; FileNotFoundError if it doesn't exist."""
        return os.stat(_single(name), dir_fd=self._fd, follow_symlinks=False)

    def names(self) -> list[str]:
        """The names in it, sorted."""
        found = self.some_names(_NAMES_MAX + 1)
        if len(found) > _NAMES_MAX:
            raise UnsafeFileError(FileFault.MANY, self._name)
        return sorted(found)

    def some_names(self, count: int) -> list[str]:
        """At most `count` of its entries, in no particular order."""
        with os.scandir(self._fd) as entries:
            return [entry.name for entry in itertools.islice(entries, count)]

    # --- opening ------------------------------------------------------------------------------

    def open_file(
        self,
        name: str,
        flags: int = os.O_RDONLY,
        *,
        limit: int | None = None,
        owners: Collection[int] | None = None,
        single: bool = False,
    ) -> int:
        """A descriptor of a regular file that exists; `name` may have several parts.

        At most `limit` bytes long, of one of `owners`, and if `single` without a second name:
        writing through one name must not change another file.
        """
        fd = _opened(self._fd, name, flags | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise UnsafeFileError(FileFault.KIND, name)
            if owners is not None and found.st_uid not in owners:
                raise UnsafeFileError(FileFault.OWNER, name)
            if limit is not None and found.st_size > limit:
                raise UnsafeFileError(FileFault.SIZE, name, f" (more than {limit} bytes)")
            if single and found.st_nlink != 1:
                raise UnsafeFileError(FileFault.NAMES, name)
            os.set_blocking(fd, True)  # io_uring would answer EAGAIN where it has to read
        except BaseException:
            os.close(fd)
            raise
        return fd

    def subfolder(self, name: str) -> Folder:
        """A folder in it; `name` may have several parts."""
        return Folder(_opened(self._fd, name, _FOLDER), name)

    def read(
        self, name: str, limit: int, *, owners: Collection[int] | None = None, single: bool = False
    ) -> bytes:
        """The content of a regular file of at most `limit` bytes."""
        fd = self.open_file(name, limit=limit, owners=owners, single=single)
        with os.fdopen(fd, "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise UnsafeFileError(FileFault.SIZE, name, f" (more than {limit} bytes)")
        return data

    # --- making and changing ------------------------------------------------------------------

    def create(self, name: str, mode: int = 0o600, flags: int = os.O_WRONLY) -> int:
        """A descriptor of a new, empty file; FileExistsError if the name is taken."""
        dry_run.forbid()
        fd = _opened(self._fd, _single(name), flags | os.O_CREAT | os.O_EXCL, mode)
        try:
            os.fchmod(fd, mode)  # whatever the umask
        except BaseException:
            os.close(fd)
            raise
        return fd

    def create_nameless(self, mode: int = 0o600) -> int:
        """A descriptor, for reading and writing, of a new file that has no name."""
        dry_run.forbid()
        try:
            return _opened(self._fd, ".", os.O_TMPFILE | os.O_RDWR, mode)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
        name = f"{TEMP_PREFIX}{secrets.token_hex(8)}"  # NFS
        fd = self.create(name, mode, os.O_RDWR)
        self.remove(name)
        return fd

    def make_subfolder(self, name: str, mode: int = 0o755) -> None:
        """Make a folder unless it exists; refuse anything else of that name."""
        dry_run.forbid()
        made = False
        with contextlib.suppress(FileExistsError):
            os.mkdir(_single(name), mode, dir_fd=self._fd)
            made = True
        with self.subfolder(name) as folder:
            if made:
                os.fchmod(folder.fileno(), mode)  # whatever the umask
                self.sync()

    def fill(self, name: str, write: Callable[[int], None], *, mode: int = 0o600) -> None:
        """Replace a file as a whole by what `write` writes to its descriptor: after a crash it
        holds the old or the new content.
        """
        dry_run.forbid()
        temp = f"{TEMP_PREFIX}{name}-{secrets.token_hex(4)}"
        fd = self.create(temp, mode)
        try:
            try:
                write(fd)
                os.fsync(fd)
            finally:
                os.close(fd)
            self.move(temp, self, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self.remove(temp)
            raise
        self.sync()

    def write(self, name: str, data: bytes, *, mode: int = 0o600) -> None:
        """Replace a file as a whole, durable on return."""

        def pour(fd: int) -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

        self.fill(name, pour, mode=mode)

    def move(self, name: str, target: Folder, new_name: str) -> None:
        """Rename a file, replacing any file of the new name; not durable by itself."""
        dry_run.forbid()
        os.rename(
            _single(name),
            _single(new_name),
            src_dir_fd=self._fd,
            dst_dir_fd=target.fileno(),
        )

    def link(self, name: str, target: Folder, new_name: str) -> None:
        """Give a regular file a second name; FileExistsError if it is taken."""
        dry_run.forbid()
        os.link(
            _single(name),
            _single(new_name),
            src_dir_fd=self._fd,
            dst_dir_fd=target.fileno(),
            follow_symlinks=False,
        )

    def sync(self) -> None:
        """Make its names durable."""
        os.fsync(self._fd)

    # --- removing -----------------------------------------------------------------------------

    def remove(self, name: str) -> None:
        """Remove anything but a folder; FileNotFoundError if it doesn't exist."""
        dry_run.forbid()
        os.unlink(_single(name), dir_fd=self._fd)

    def remove_subfolder(self, name: str) -> None:
        """Remove an empty folder."""
        dry_run.forbid()
        os.rmdir(_single(name), dir_fd=self._fd)

    def remove_tree(self, name: str) -> None:
        """Remove an entry with everything in it, however deep; links are removed and not followed.
        Two descriptors are enough: deeper folders are moved up first.
        """
        dry_run.forbid()
        if not stat.S_ISDIR(self.status(name).st_mode):
            self.remove(name)
            return
        with self.subfolder(name) as top:
            removed = 0
            while found := top.some_names(_NAMES_MAX):
                for entry in found:
                    removed += 1
                    if removed > _REMOVED_MAX:
                        raise UnsafeFileError(FileFault.MANY, name)
                    top.empty_one(entry, top)
        self.remove_subfolder(name)

    def empty_one(self, name: str, top: Folder) -> None:
        """Remove an entry; folders inside a folder are moved to `top` instead."""
        dry_run.forbid()
        if not stat.S_ISDIR(self.status(name).st_mode):
            self.remove(name)
            return
        with self.subfolder(name) as below:
            while found := below.some_names(_NAMES_MAX):
                for entry in found:
                    if stat.S_ISDIR(below.status(entry).st_mode):
                        below.move(entry, top, f"{TEMP_PREFIX}{secrets.token_hex(8)}")
                    else:
                        below.remove(entry)
        self.remove_subfolder(name)


def _opened(folder: int, name: str, flags: int, mode: int = 0) -> int:
    try:
        return open_beneath(folder, name, flags, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EXDEV):
            raise UnsafeFileError(FileFault.LINK, name) from error
        if error.errno == errno.ENXIO:  # a pipe that nobody reads, or a socket
            raise UnsafeFileError(FileFault.KIND, name) from error
        if error.errno == errno.ENOTDIR and flags & os.O_DIRECTORY:
            raise UnsafeFileError(FileFault.FOLDER, name) from error
        raise


def _single(name: str) -> str:
    if name in ("", ".", "..") or "/" in name:
        raise OSError(errno.EINVAL, "not the name of a file", name)
    return name
