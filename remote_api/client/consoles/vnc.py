"""A VM's screen on a local port, for any VNC viewer.

viewer --TCP--> 127.0.0.1:PORT --> this --WebSocket over TLS--> the host --> QEMU

Each connection uses a new ticket, so viewers can disconnect and connect again. The port is open to
every user of this machine while the command runs; RFB itself asks for no password.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from remote_api.client.consoles.websocket import open_console
from remote_api.client.errors import ClientError, ConflictError, MisuseError
from remote_api.client.sdk import Mica
from vmkernel.model import ConsoleKind

__all__ = ["VncPort", "started_viewer", "viewer_words"]

_PART_BYTES = 1 << 16
_FIRST_PORT = 5900
"""Where the display numbers of viewers begin (RFC 6143, 5)."""
_ADDRESS_FORM = ("127.0.0.1::{port}",)
"""Understood by TigerVNC, TightVNC, RealVNC and UltraVNC."""
_ADDRESS_FORMS = {
    "gvncviewer": ("127.0.0.1:{display}",),
    "krdc": ("{uri}",),
    "remmina": ("-c", "{uri}"),
    "remote-viewer": ("{uri}",),
    "vinagre": ("{uri}",),
}
_MAX_VIEWERS = 8


class VncPort:
    """A listening port of this machine that leads to one VM's screen."""

    def __init__(
        self, mica: Mica, vm_id: str, *, port: int = 0, on_failure: Callable[[str], None]
    ) -> None:
        """Listen on 127.0.0.1, on any free port if `port` is 0. Raises ConflictError.

        `on_failure` is called by another thread with the reason when a viewer can't connect.
        """
        self._mica = mica
        self._vm_id = vm_id
        self._on_failure = on_failure
        self._room = threading.BoundedSemaphore(_MAX_VIEWERS)
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", port))
            self._listener.listen(_MAX_VIEWERS)
        except OSError as error:
            self._listener.close()
            raise ConflictError(
                f"can't listen on 127.0.0.1:{port}: {error.strerror}; give another --port"
            ) from error
        self.port: int = self._listener.getsockname()[1]

    def close(self) -> None:
        """Accept no more viewers."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def serve(self) -> None:
        """Accept viewers until `close`."""
        while True:
            try:
                viewer, _ = self._listener.accept()
            except OSError:
                return
            if not self._room.acquire(blocking=False):
                self._on_failure(f"viewer refused: {_MAX_VIEWERS} viewers are connected already")
                viewer.close()
                continue
            threading.Thread(target=self._serve_one, args=(viewer,), daemon=True).start()

    def _serve_one(self, viewer: socket.socket) -> None:
        try:
            with viewer:
                self._relay(viewer)
        except ClientError as error:
            self._on_failure(str(error))
        finally:
            self._room.release()

    def _relay(self, viewer: socket.socket) -> None:
        from websockets.exceptions import ConnectionClosed

        viewer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with open_console(self._mica, self._vm_id, ConsoleKind.VNC) as screen:

            def show() -> None:
                with contextlib.suppress(ConnectionClosed, OSError):
                    for data in screen:
                        viewer.sendall(data.encode() if isinstance(data, str) else data)
                with contextlib.suppress(OSError):
                    viewer.shutdown(socket.SHUT_RDWR)

            shower = threading.Thread(target=show, daemon=True)
            shower.start()
            with contextlib.suppress(ConnectionClosed, OSError):
                while data := viewer.recv(_PART_BYTES):
                    screen.send(data)
            screen.close()
            shower.join()


def viewer_words(command: str, port: int) -> list[str]:
    """The words that start a viewer, with `{port}`, `{display}` (the port counted from 5900) and
    `{uri}` filled in; if it names none of them, the address is added in the form that the viewer
    understands. Raises MisuseError."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise MisuseError(f"--viewer: can't parse the command: {error}") from error
    if not words:
        raise MisuseError("--viewer: the command is empty")
    values = {
        "{port}": str(port),
        "{display}": str(port - _FIRST_PORT),
        "{uri}": f"vnc://127.0.0.1:{port}",
    }
    if not any(place in word for word in words for place in values):
        words += _ADDRESS_FORMS.get(Path(words[0]).name, _ADDRESS_FORM)
    for place, value in values.items():
        words = [word.replace(place, value) for word in words]
    return words


@contextlib.contextmanager
def started_viewer(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A running viewer, which is ended at the end. Raises ConflictError."""
    try:
        viewer = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise ConflictError(f"can't start the viewer {words[0]}: {error.strerror}") from error
    try:
        yield viewer
    finally:
        viewer.terminate()
        viewer.wait()
