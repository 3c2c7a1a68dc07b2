"""A screen or serial line that is only written to: no echo, no signals, never blocks."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import struct
import termios
from pathlib import Path

from vmkernel.host.sysfs import DEV, SYS, read_text

__all__ = ["Terminal", "console_names"]

_KDSKBMODE = 0x4B45
_K_OFF = 4
_VT_ACTIVATE = 0x5606
_MAX_PENDING_BYTES = 1 << 16
_OFLAG = 1
_LFLAG = 3
_INPUT_FLAGS = termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN


def console_names(sys: Path = SYS) -> tuple[str, ...]:
    """The terminals that the kernel's `console=` chose, such as `tty1` and `ttyS0`.

    `tty0` is the screen in the foreground; we use the first one.
    """
    names = (read_text(sys / "class/tty/console/active") or "tty0").split()
    return tuple(dict.fromkeys("tty1" if name == "tty0" else name for name in names))


class Terminal:
    """One terminal; after a failure it is not used any more, since it is only for display."""

    def __init__(self, name: str, dev: Path = DEV) -> None:
        self.name = name
        self.is_screen = re.fullmatch(r"tty[0-9]+", name) is not None
        self._fd = os.open(dev / name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._pending = bytearray()
        self._watched = False
        self._quiet_input()

    @property
    def works(self) -> bool:
        """False after a failure or once closed."""
        return self._fd >= 0

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows; 80 x 25 if it doesn't report them."""
        with contextlib.suppress(OSError):
            rows, columns = struct.unpack(
                "HHHH", fcntl.ioctl(self._fd, termios.TIOCGWINSZ, b"\0" * 8)
            )[:2]
            if columns and rows:
                return columns, rows
        return 80, 25

    def write(self, text: str) -> None:
        """Write as much as the terminal accepts now; the rest follows, or is dropped if too much is
        pending.
        """
        if self.works and len(self._pending) < _MAX_PENDING_BYTES:
            self._pending += text.encode("ascii", errors="replace")
            self._flush()

    def close(self) -> None:
        if self.works:
            self._unwatch()
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _quiet_input(self) -> None:
        """Ignore all input: no echo, and no key sends a signal or has any other effect."""
        with contextlib.suppress(termios.error, OSError):
            settings = termios.tcgetattr(self._fd)
            settings[_LFLAG] &= ~_INPUT_FLAGS
            settings[_OFLAG] |= termios.OPOST | termios.ONLCR
            termios.tcsetattr(self._fd, termios.TCSANOW, settings)
        if self.is_screen:
            for request, argument in ((_VT_ACTIVATE, int(self.name[3:])), (_KDSKBMODE, _K_OFF)):
                with contextlib.suppress(OSError):
                    fcntl.ioctl(self._fd, request, argument)

    def _flush(self) -> None:
        while self._pending and self.works:
            try:
                del self._pending[: os.write(self._fd, self._pending)]
            except BlockingIOError:
                self._watch()
                return
            except OSError:
                self._pending.clear()
                self.close()
                return
        self._unwatch()

    def _watch(self) -> None:
        if not self._watched:
            with contextlib.suppress(RuntimeError, OSError):
                asyncio.get_running_loop().add_writer(self._fd, self._flush)
                self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_writer(self._fd)
