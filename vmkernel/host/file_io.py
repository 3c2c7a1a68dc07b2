"""What the kernel and a file system offer QEMU for reading and writing files: probes."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

__all__ = ["io_uring_works", "takes_direct_io"]

_SYS_IO_URING_SETUP = 425
_PARAMS_BYTES = 120


@cache
def io_uring_works() -> bool:
    """True where an io_uring can be set up: not with an old kernel, nor where a container's
    seccomp filter or a sysctl forbids it."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(_PARAMS_BYTES)
    fd: int = libc.syscall(_SYS_IO_URING_SETUP, 4, params)
    if fd < 0:
        return False
    os.close(fd)
    return True


def takes_direct_io(path: Path) -> bool:
    """True where the file can be read past the page cache."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(fd)
    return True
