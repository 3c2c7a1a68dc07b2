"""What every VM driver shares: the rest of the host as it sees it, chosen once at start."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from firmware.guest_firmware import UefiFiles
from vmkernel.devices import Accelerator
from vmkernel.network import VmNetwork
from vmkernel.qemu import QemuProgram, Qmp
from vmkernel.resources import MemoryAdmission
from vmkernel.vm.launch import Launcher, RunFolder
from vmkernel.vm.ports import Events, Storage

__all__ = ["OpenQmp", "Surroundings", "Timing"]

OpenQmp = Callable[[socket.socket, str, float], Awaitable[Qmp]]
"""Greets the QEMU behind a connected socket: socket, VM's id, time-out in seconds."""


@dataclass(frozen=True)
class Timing:
    """How long things may take, in seconds."""

    greeting_s: float = 120.0
    """From QEMU's start to its greeting; a loaded machine without KVM takes its time."""
    quit_s: float = 15.0
    """From `quit` to the end of the process; it flushes its disks first."""
    kill_s: float = 15.0
    reconnect_s: float = 10.0
    retry_s: float = 2.0


@dataclass(frozen=True)
class Surroundings:
    """The host of a VM."""

    run_dir: Path
    """Holds one folder a VM."""
    storage: Storage
    network: VmNetwork
    launcher: Launcher
    events: Events
    admission: MemoryAdmission
    open_qmp: OpenQmp
    program: Callable[[], Awaitable[QemuProgram]]
    accelerator: Callable[[], Awaitable[Accelerator]]
    uefi: UefiFiles | None
    chown: bool
    """True where each VM has a user of its own, which must own its files."""
    data_dirs: Sequence[Path] = ()
    """Where QEMU finds its own firmware, where that isn't where it would look."""
    timing: Timing = field(default_factory=Timing)

    def folder(self, vm_id: str) -> RunFolder:
        """A VM's run folder."""
        return RunFolder(self.run_dir / vm_id)
