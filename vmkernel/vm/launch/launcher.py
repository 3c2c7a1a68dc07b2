"""The interface of the launchers, which start and supervise QEMU.

A launcher only starts, watches and kills processes. What a VM is and whether it should run, the
driver decides.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmkernel.devices import Accelerator
from vmkernel.host.folder import open_folder

__all__ = ["LaunchRequest", "Launcher", "RunFolder", "TpmLaunch"]


_OURS = re.compile(r".*\.lock|serial[0-9]+\.sock|qemu\.log.*|\.tmp-.*")


@dataclass(frozen=True)
class RunFolder:
    """A VM's folder below the run directory; it is forgotten at power-off."""

    path: Path

    @property
    def qmp(self) -> Path:
        """QEMU's control socket."""
        return self.path / "qmp.sock"

    @property
    def serial(self) -> Path:
        """The first serial line."""
        return self.serial_port(0)

    def serial_port(self, port: int) -> Path:
        """A serial line; 0 is COM1."""
        return self.path / f"serial{port}.sock"

    @property
    def agent(self) -> Path:
        """The guest agent's channel."""
        return self.path / "agent.sock"

    @property
    def nbd(self) -> Path:
        """The socket of the disks that an open backup reads."""
        return self.path / "nbd.sock"

    @property
    def log(self) -> Path:
        """The pipe that QEMU, and the TPM's emulator beside it, write their messages to; see
        vmkernel/vm/launch/logs.py."""
        return self.path / "qemu.log"

    @property
    def record(self) -> Path:
        """What was started, for the vmkernel after a restart."""
        return self.path / "launch.json"

    def remove(self) -> None:
        """Remove the folder of a VM that is gone; what isn't ours in it stays, and it then too."""
        with contextlib.suppress(OSError), open_folder(self.path.parent) as above:
            with above.subfolder(self.path.name) as folder:
                ours = {path.name for path in (self.qmp, self.agent, self.nbd, self.record)}
                for name in folder.names():
                    if name in ours or _OURS.fullmatch(name):
                        folder.remove(name)
            above.remove_subfolder(self.path.name)


@dataclass(frozen=True)
class TpmLaunch:
    """The emulator of a TPM, which runs beside QEMU and ends with it."""

    state: Path
    """The file that it keeps its state in."""
    fd: int
    """Its end of the connection with QEMU."""

    def arguments(self, fd: int) -> list[str]:
        """swtpm's arguments, with its connection as descriptor `fd` (swtpm(8))."""
        return [
            "socket",
            "--tpm2",
            "--tpmstate",
            f"backend-uri=file://{self.state}",
            "--ctrl",
            f"type=unixio,clientfd={fd}",
            "--terminate",
        ]


@dataclass(frozen=True)
class LaunchRequest:
    """One start of one QEMU."""

    vm_id: str
    folder: RunFolder
    arguments: tuple[str, ...]
    """After the program's name."""
    fds: tuple[int, ...]
    """Passed to QEMU under the numbers of `fd_number`; they stay open here."""
    uid: int
    accelerator: Accelerator
    cpu_count: int
    memory_max_bytes: int
    read_only: tuple[Path, ...]
    """Files that QEMU opens for reading: firmware, images."""
    read_write: tuple[Path, ...]
    """The VM's own files, the TPM's state among them."""
    log: int
    """What takes the messages of its programs; it stays open here."""
    tpm: TpmLaunch | None = None


class Launcher(Protocol):
    """Starts QEMU so that it outlives this process, and finds it again."""

    def fd_number(self, index: int, fd: int) -> int:
        """The number in QEMU of the descriptor `fd`, the `index`-th of a request."""
        ...

    async def launch(self, request: LaunchRequest) -> None:
        """Start QEMU; MicaError if it can't be started."""
        ...

    def is_active(self, vm_id: str) -> bool:
        """True while any process of the VM is alive."""
        ...

    def main_pid(self, vm_id: str) -> int | None:
        """QEMU's process id, as seen from here; None if there is none."""
        ...

    async def wait_gone(self, vm_id: str, timeout_s: float) -> bool:
        """True once no process of the VM is left; False if the time is over."""
        ...

    def kill(self, vm_id: str) -> None:
        """End the VM's processes at once."""
        ...

    async def collect(self, vm_id: str) -> str | None:
        """Forget the VM's ended process; returns how it ended, in words, if that
        was not in order.
        """
        ...

    async def close(self) -> None:
        """Stop watching; the processes keep running."""
        ...
