"""The kernel's log as one piece of text (klogctl(3)); it is never cleared."""

from __future__ import annotations

import ctypes
import os

__all__ = ["kernel_log", "silence_kernel"]

_READ_ALL = 3
_CONSOLE_LEVEL = 8
_BUFFER_BYTES = 10
_MAX_BYTES = 4 << 20


def _klogctl(action: int, buffer: ctypes.Array[ctypes.c_char] | None, length: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.klogctl(action, buffer, length))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def kernel_log() -> str:
    """All that is in the ring. OSError if that is not allowed."""
    size = min(_klogctl(_BUFFER_BYTES, None, 0), _MAX_BYTES)
    buffer = ctypes.create_string_buffer(size)
    length = _klogctl(_READ_ALL, buffer, size)
    return buffer.raw[:length].decode(errors="replace")


def silence_kernel(level: int) -> None:
    """Show only messages below `level` on the consoles (1: only emergencies)."""
    _klogctl(_CONSOLE_LEVEL, None, level)
