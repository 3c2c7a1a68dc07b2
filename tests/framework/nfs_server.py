"""A real NFS server outside of the test machine: nfs-ganesha in user space, version 4.

It runs from the unpacked tree on the libraries of the tools tree, listens on the loopback alone
and serves one folder as `/export`. The machine reaches it through the emulator's own network.
Version 3 would need an rpcbind on the build host's port 111. Needs root.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.framework import inputs

__all__ = ["NFS_HOST", "NfsServer"]

NFS_HOST = "10.0.2.2"
"""The build host, as the emulator's network shows it to the machine."""
START_S = 30.0
LIBRARIES = "usr/lib/x86_64-linux-gnu"


class NfsServer:
    """The server; `port` is where it listens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.export = folder / "export"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for place in (self.export, self.folder / "recovery"):
            place.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = self.folder / "ganesha.conf"
        config.write_text(self._config())
        tree, tools = inputs.guests(), inputs.tools()
        places = [tree / LIBRARIES, tree / "usr/lib/ganesha", tools / LIBRARIES]
        self._process = subprocess.Popen(
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
        """Go on."""
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
    NFS_Port = {self.port}; Bind_addr = 127.0.0.1; Protocols = 4; NLM_Port = 0; Rquota_Port = 0;
    Enable_NLM = false; Enable_RQUOTA = false; Plugins_Dir = {plugins};
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
