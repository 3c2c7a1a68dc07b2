"""What every VM driver shares: the rest of the host as it sees it, chosen once at start."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from firmware.guest_firmware import UefiFiles
from vmkernel.devices import Accelerator
from vmkernel.devices.processors import HOST_MODEL
from vmkernel.host.kvm import KvmProbe
from vmkernel.host.worker import Workers
from vmkernel.network import VmNetwork
from vmkernel.qemu import QemuProgram, Qmp
from vmkernel.resources import HugePagePool, MemoryAdmission
from vmkernel.storage.ports import Storage
from vmkernel.vm.launch.launcher import Launcher, RunFolder
from vmkernel.vm.launch.logs import RunLogs
from vmkernel.vm.ports import Events
from vmkernel.vm.store.launch_record import boot_id

if TYPE_CHECKING:
    from vmkernel.qemu.cpu_models import CpuModels

__all__ = ["Once", "OpenQmp", "Timing", "VmContext"]

Value = TypeVar("Value")

OpenQmp = Callable[[socket.socket, str, float], Awaitable[Qmp]]
"""Greets the QEMU behind a connected socket: socket, VM's id, time-out in seconds."""


class Once(Generic[Value]):
    """A value that is computed when it is first needed; after a failure it is computed again."""

    def __init__(self, find: Callable[[], Awaitable[Value]]) -> None:
        self._find = find
        self._lock = asyncio.Lock()
        self._found: Value | None = None

    async def __call__(self) -> Value:
        """The value, computed now if necessary."""
        async with self._lock:
            if self._found is None:
                self._found = await self._find()
            return self._found

    @property
    def known(self) -> Value | None:
        """The value, if it has been computed."""
        return self._found


@dataclass(frozen=True)
class Timing:
    """How long things may take, in seconds."""

    greeting_s: float = 120.0
    """From QEMU's start to its greeting; a loaded machine without KVM takes its time."""
    quit_s: float = 15.0
    """From `quit` to the end of the process; it flushes its disks first."""
    kill_s: float = 15.0
    linger_s: float = 1.0
    """How long a QEMU may outlive its QMP session without being asked whether it is well."""
    reconnect_s: float = 10.0
    retry_s: float = 2.0
    restart_first_s: float = 1.0
    restart_last_s: float = 300.0
    steady_s: float = 600.0
    """How long a VM runs before its next end counts as a first one."""
    datastores_s: float = 60.0
    """How long autostart waits for datastores to appear."""
    space_first_s: float = 5.0
    space_last_s: float = 60.0
    """Between two checks for free space, while a VM is paused for lack of it."""
    press_again_s: float = 10.0
    """Between two presses of the power button of a guest that is to shut down. Firmware, loaders
    and kernels that still boot lose a press; systems that are shutting down ignore one. Often
    enough for several presses within the usual two minutes, seldom enough that a guest under
    emulation has reacted to one before the next."""


@dataclass(frozen=True)
class VmContext:
    """The host of a VM."""

    run_dir: Path
    """OperationLocks one folder a VM."""
    storage: Storage
    network: VmNetwork
    launcher: Launcher
    events: Events
    admission: MemoryAdmission
    open_qmp: OpenQmp
    program: Once[QemuProgram]
    kvm: Once[KvmProbe]
    uefi: UefiFiles | None
    uefi_secure_boot: UefiFiles | None = field(default=None, kw_only=True)
    cpu_models: Callable[[Accelerator], Awaitable[CpuModels]] | None = field(
        default=None, kw_only=True
    )
    """Asks QEMU for its CPU models; None if any name is accepted."""
    jailed: bool
    """True if each VM has its own user, which must own its files and sees no devices."""
    data_dirs: Sequence[Path] = ()
    """Where QEMU finds its firmware, if that isn't its default."""
    workers: Workers | None = None
    """Starts the workers that read guests' data."""
    worker_uid: int | None = None
    """Their uid; None: our own."""
    prepare_vsock: Callable[[], Awaitable[None]] | None = None
    """Makes sure that /dev/vhost-vsock exists, if that is Mica's task."""
    logs: RunLogs = field(default_factory=RunLogs)
    huge_pages: HugePagePool = field(default_factory=HugePagePool)
    timing: Timing = field(default_factory=Timing)
    boot_name: str = field(default_factory=boot_id)
    """What VMs are started with once: a boot of the host, a run of `mica serve`."""
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the host ends: from then on nothing is started of itself."""

    async def accelerator(self) -> Accelerator:
        """The accelerator of a VM started now."""
        return Accelerator.KVM if (await self.kvm()).usable else Accelerator.TCG

    def known_accelerator(self) -> str | None:
        """What a VM started now runs with; None until that has been tried."""
        probe = self.kvm.known
        return None if probe is None else ("kvm" if probe.usable else "tcg")

    def no_kvm_reason(self) -> str | None:
        """Why that isn't KVM, if it isn't and that is known."""
        probe = self.kvm.known
        return None if probe is None else probe.reason

    async def check_cpu_model(self, model: str) -> None:
        """Raise `invalid` with alternatives if a CPU model isn't available here."""
        if model == HOST_MODEL or self.cpu_models is None:
            return
        (await self.cpu_models(await self.accelerator())).check(model)

    def last_lines(self, vm_id: str) -> str:
        """The last lines of a VM's programs, on one line."""
        return self.logs.last_lines(self.folder(vm_id).log)

    def folder(self, vm_id: str) -> RunFolder:
        return RunFolder(self.run_dir / vm_id)
