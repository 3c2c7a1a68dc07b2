"""QEMU's monitor (QMP), as much of it as powering off needs."""

import json
import socket
from pathlib import Path

__all__ = ["Monitor"]

TIMEOUT_S = 10.0


class Monitor:
    """One connection; each command is answered before the next is sent."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")
        self._file.readline()
        self.command("qmp_capabilities")

    def command(self, name: str) -> None:
        """Send a command and wait until it was taken."""
        self._socket.sendall(json.dumps({"execute": name}).encode() + b"\n")
        while line := self._file.readline():
            reply = json.loads(line)
            if "return" in reply:
                return
            if "error" in reply:
                raise OSError(f"QEMU refuses {name}: {reply['error'].get('desc')}")
        raise OSError("QEMU's monitor closed")

    def close(self) -> None:
        self._file.close()
        self._socket.close()
