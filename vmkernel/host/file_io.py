"""What the kernel and a file system offer QEMU for reading and writing files: probes."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__all__ = ["QEMU_AIO_EVENTS", "linux_aio_works", "takes_direct_io"]

_SYS_IO_SETUP, _SYS_IO_DESTROY = 206, 207
QEMU_AIO_EVENTS = 1024
"""What each of QEMU's event loops takes of the system's limit (fs.aio-max-nr) when its first disk
uses Linux AIO (QEMU: block/linux-aio.c). A VM has two loops: the main one and that of its disks."""


def linux_aio_works(loops: int = 2) -> bool:
    """True if a QEMU started now can have Linux AIO in that many event loops: the kernel has it, no
    filter forbids it, and the system's limit has room. Without room QEMU would not start.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    context = ctypes.c_ulong(0)
    events = ctypes.c_uint(loops * QEMU_AIO_EVENTS)
    if libc.syscall(_SYS_IO_SETUP, events, ctypes.byref(context)) < 0:
        return False
    libc.syscall(_SYS_IO_DESTROY, context)
    return True


def takes_direct_io(path: Path) -> bool:
    """True if the file can be read bypassing the page cache."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(fd)
    return True
