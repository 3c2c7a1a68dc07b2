"""A real NFS server outside of the test machine: nfs-ganesha in user space, versions 3 and 4.

It runs from the unpacked tree on the libraries of the tools tree, listens on the loopback alone and
serves one folder as `/export`. The machine reaches it through the emulator's own network. Version 3
is served only if an rpcbind takes its registration: if the build host has none, one that says yes
to everything stands in its place while the server starts. Needs root.
"""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.framework import inputs
from tests.framework.ending import started

__all__ = ["NFS_HOST", "NfsServer"]

NFS_HOST = "10.0.2.2"
"""The build host, as the emulator's network shows it to the machine."""
START_S = 30.0
_RPCBIND = Path("/run/rpcbind.sock")
LIBRARIES = "usr/lib/x86_64-linux-gnu"


class NfsServer:
    """The server; `port` is where it listens, `mount_port` where version 3's mount service does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.export = folder / "export"
        self.port = self.mount_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for place in (self.export, self.folder / "recovery"):
            place.mkdir(parents=True, exist_ok=True)
        self.port, self.mount_port = _free_port(), _free_port()
        config = self.folder / "ganesha.conf"
        config.write_text(self._config())
        tree, tools = inputs.guests(), inputs.tools()
        places = [tree / LIBRARIES, tree / "usr/lib/ganesha", tools / LIBRARIES]
        self._process = started(
            [
                str(tools / "usr/lib64/ld-linux-x86-64.so.2"),
                *("--library-path", ":".join(map(str, places))),
                str(tree / "usr/bin/ganesha.nfsd"),
                *("-F", "-x", "-f", str(config)),
                *("-p", str(self.folder / "pid"), "-L", str(self.folder / "log")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with _Registrar(_RPCBIND):
                self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def fall_silent(self) -> None:
        """Answer nothing more, with all connections open: what a dead server looks like."""
        self._running().send_signal(signal.SIGSTOP)

    def speak_again(self) -> None:
        """Answer again."""
        self._running().send_signal(signal.SIGCONT)

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                if self._running().poll() is not None or time.monotonic() > end:
                    log = self.folder / "log"
                    text = log.read_text(errors="replace")[-2000:] if log.exists() else ""
                    raise AssertionError(f"the NFS server does not start: {text}") from None
            time.sleep(0.1)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the NFS server was never started"
        return self._process

    def _end(self) -> None:
        process = self._running()
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)

    def _config(self) -> str:
        plugins = inputs.guests() / LIBRARIES / "ganesha"
        return f"""
NFS_CORE_PARAM {{
    NFS_Port = {self.port}; MNT_Port = {self.mount_port}; Bind_addr = 127.0.0.1; Protocols = 3, 4;
    mount_path_pseudo = true; Enable_NLM = false; Enable_RQUOTA = false; Plugins_Dir = {plugins};
    allow_set_io_flusher_fail = true;
}}
NFSv4 {{
    Graceless = true; RecoveryBackend = fs; RecoveryRoot = {self.folder / "recovery"};
    Only_Numeric_Owners = true; UseGetpwnam = true;
}}
DIRECTORY_SERVICES {{ DomainName = localdomain; }}
EXPORT {{
    Export_Id = 1; Path = {self.export}; Pseudo = /export; Access_Type = RW;
    Squash = No_Root_Squash; SecType = sys; FSAL {{ Name = VFS; }}
}}
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Registrar:
    """Answers yes to every call of RFC 1833 on rpcbind's local socket, if no rpcbind runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        if not self._path.exists():
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._path))
            self._listener.listen()
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self._path.unlink()
            self._listener.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_say_yes, args=(stream,), daemon=True).start()


def _say_yes(stream: socket.socket) -> None:
    """Answer each record (RFC 5531) with `accepted, success, true`."""
    with stream, stream.makefile("rb") as calls:
        while len(mark := calls.read(4)) == 4:
            call = calls.read(struct.unpack(">I", mark)[0] & 0x7FFFFFFF)
            reply = call[:4] + struct.pack(">6I", 1, 0, 0, 0, 0, 1)
            stream.sendall(struct.pack(">I", 0x80000000 | len(reply)) + reply)
