"""The terminal that shows a VM's serial console.

Leave with Ctrl-]. What is typed goes to the guest as it is, unless another user is writing; the
terminal is raw meanwhile and is always restored.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from remote_api.client.errors import ConflictError, UnexpectedError
from remote_api.client.http.reading import read
from vmkernel.model import ConsoleNotice

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

__all__ = ["ESCAPE", "interact"]

ESCAPE = b"\x1d"
_CLOSE_TIMEOUT_S = 3.0


def interact(
    socket: ClientConnection, *, on_notice: Callable[[ConsoleNotice], None] = lambda _: None
) -> str:
    """Join this process's terminal and a serial console; why it ended.

    `on_notice` is called by another thread when the writer changes.
    """
    from websockets.exceptions import ConnectionClosed

    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    ended = threading.Event()
    wake_read, wake_write = os.pipe()

    def show() -> None:
        try:
            for data in socket:
                if isinstance(data, str):
                    on_notice(read(data.encode(), ConsoleNotice))
                else:
                    _write_all(stdout, data)
        except (ConnectionClosed, OSError, UnexpectedError):
            pass
        finally:
            ended.set()
            with contextlib.suppress(OSError):
                os.write(wake_write, b"x")

    shower = threading.Thread(target=show, name="console output", daemon=True)
    try:
        with _raw(stdin):
            shower.start()
            while not ended.is_set():
                ready, _, _ = select.select([stdin, wake_read], [], [])
                if stdin not in ready:
                    continue
                data = os.read(stdin, 4096)
                before, escape, _ = data.partition(ESCAPE)
                try:
                    if before:
                        socket.send(before)
                except ConnectionClosed:
                    break
                if escape:
                    return "disconnected"
                if not data:
                    # Input that was piped in is over; what the guest still says is shown.
                    ended.wait()
        return "closed by the host"
    finally:
        ended.set()
        socket.close()
        shower.join(_CLOSE_TIMEOUT_S)
        os.close(wake_read)
        os.close(wake_write)


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    if not os.isatty(fd):
        yield
        return
    try:
        before = termios.tcgetattr(fd)
    except termios.error as error:
        raise ConflictError(f"can't switch the terminal to raw mode: {error}") from error
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
