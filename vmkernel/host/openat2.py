"""openat2(2): opening below a folder, without leaving it or following a link."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache

__all__ = ["open_beneath"]

_SYS_OPENAT2 = 437
"""On x86-64, as on every architecture since 5.6."""
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_RESOLVE = _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS
_HOW = struct.Struct("=QQQ")
_TRIES = 64
"""The kernel answers EAGAIN if it can't be sure because of a concurrent rename."""
_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_beneath(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """A descriptor of the relative `path` below an open folder.

    OSError: ELOOP if any part of the path is a symbolic link, EXDEV if it leads out of the folder.
    Closed on exec; a last part that is a link is refused as well.
    """
    parts = path.split("/")
    if path.startswith("/") or ".." in parts:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    if not _kernel_has_it():
        return _walk(folder, parts, flags, mode)
    creates = flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE
    how = _HOW.pack(flags, mode if creates else 0, _RESOLVE)
    for _ in range(_TRIES):
        fd = _openat2(folder, os.fsencode(path), how)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


def _openat2(folder: int, path: bytes, how: bytes) -> int:
    return int(
        _libc().syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(folder),
            ctypes.c_char_p(path),
            ctypes.c_char_p(how),
            ctypes.c_size_t(len(how)),
        )
    )


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _kernel_has_it() -> bool:
    """False before Linux 5.6, and if a container's filter refuses the call."""
    fd = os.open("/", _WALK)
    try:
        found = _openat2(fd, b".", _HOW.pack(_WALK, 0, _RESOLVE))
    finally:
        os.close(fd)
    if found >= 0:
        os.close(found)
    return found >= 0


def _walk(folder: int, parts: list[str], flags: int, mode: int) -> int:
    """The same, one part at a time: each is opened without following a link."""
    at = folder
    try:
        for part in parts[:-1]:
            below = _opened(at, part or ".", _WALK, 0)
            if at != folder:
                os.close(at)
            at = below
        return _opened(at, parts[-1] or ".", flags, mode)
    finally:
        if at != folder:
            os.close(at)


def _opened(folder: int, name: str, flags: int, mode: int) -> int:
    try:
        return os.open(name, flags, mode, dir_fd=folder)
    except NotADirectoryError as error:
        # A link in a folder's place is one of these; openat2 says which.
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from error
