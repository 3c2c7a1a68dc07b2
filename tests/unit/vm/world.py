"""A host whose QEMUs are objects, for the service and its drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from firmware.guest_firmware import UefiFiles
from tests.framework.own_time import quiet
from tests.unit.vm.fake_qemu import FakeLauncher, FakeQemu
from tests.unit.vm.folder_storage import FolderStorage
from vmkernel.events import EventBus
from vmkernel.host.kvm import KvmProbe
from vmkernel.model import Event, Operation, Vm, VmAction, VmSpec
from vmkernel.network import UserNetwork
from vmkernel.operations import OperationRegistry
from vmkernel.qemu import QemuProgram
from vmkernel.resources import HugePagePool, MemoryAdmission, MemoryFigures
from vmkernel.vm.context import Once, Timing, VmContext
from vmkernel.vm.side import VmSide

__all__ = ["World"]

GIB = 1 << 30
_LONG_S = 30.0
TIMING = Timing(
    greeting_s=0.05,
    quit_s=0.05,
    kill_s=0.05,
    linger_s=0.02,
    reconnect_s=0.02,
    retry_s=0.01,
    restart_first_s=0.02,
    restart_last_s=0.5,
    space_first_s=0.02,
    space_last_s=0.1,
    press_again_s=0.02,
)


async def _program() -> QemuProgram:
    return QemuProgram(version=(10, 0))


async def _kvm() -> KvmProbe:
    return KvmProbe(usable=True)


class World:
    """Everything around VMs; `restart` is a vmkernel that was killed and comes again."""

    def __init__(self, root: Path, launcher: FakeLauncher | None = None) -> None:
        self.root = root
        self.storage = FolderStorage(root / "ds", ("main", "second"))
        self.launcher = launcher or FakeLauncher()
        self.bus = EventBus()
        self._events = self.bus.subscribe()
        self.memory = MemoryFigures(total_bytes=8 * GIB, available_bytes=8 * GIB)
        code, variables = root / "CODE.fd", root / "VARS.fd"
        code.write_bytes(b"code")
        variables.write_bytes(b"template")
        self.uefi: UefiFiles | None = UefiFiles(code, variables)
        self.timing = TIMING
        self.boot_name = "first"
        self.new_vmkernel()

    def new_vmkernel(self) -> None:
        """One that knows nothing; the one before it has not been told to end."""
        self.operations = OperationRegistry(self.bus)
        self.host = VmContext(
            run_dir=self.root / "run" / "vm",
            storage=self.storage,
            network=UserNetwork(),
            launcher=self.launcher,
            events=self.bus,
            admission=MemoryAdmission(reserve_bytes=0, measure=lambda: self.memory),
            open_qmp=self.launcher.open_qmp,
            program=Once(_program),
            kvm=Once(_kvm),
            uefi=self.uefi,
            huge_pages=HugePagePool(self.root / "pools"),
            jailed=False,
            timing=self.timing,
            boot_name=self.boot_name,
        )
        self.vms = VmSide(self.host, self.operations)

    async def restart(self) -> None:
        """End the vmkernel as a kill would, but for what the event loop holds; start a new one."""
        await self.operations.close()
        await self.vms.stop()
        self.new_vmkernel()
        await self.vms.start()

    async def act(self, action: VmAction, vm_id: str = "web", timeout_s: float = 5.0) -> Operation:
        """An action to its end."""
        operation = await self.vms.power.act(vm_id, action, timeout_s=timeout_s, actor="test")
        return await self.operations.wait(operation.id, 10)

    async def create(self, vm_id: str = "web", **fields: Any) -> Vm:
        """A VM that needs nothing."""
        spec = VmSpec(**{"datastore": "main", **fields})
        return await self.vms.changes.create(vm_id, spec, actor="test")

    async def quiet(self, *, held: int = 0) -> None:
        """Wait until nothing more happens unless time passes: every owner task waits, and no
        thread works but `held` ones that the test itself holds up."""
        await quiet(held=held)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what must come; AssertionError where it doesn't, long after it should have."""
        end = asyncio.get_running_loop().time() + _LONG_S
        while not condition():
            assert asyncio.get_running_loop().time() < end, [
                (vm.id, vm.status.state, vm.status.reason) for vm in self.vms.inventory.list_vms()
            ]
            await asyncio.sleep(0.005)

    def qemu(self, vm_id: str = "web") -> FakeQemu:
        """The VM's QEMU."""
        return self.launcher.qemus[vm_id]

    def events(self, *types: str) -> list[Event]:
        """The events of these types since the last call for any type."""
        found = []
        while (event := self._events.poll()) is not None:
            if event.type in types:
                found.append(event)
        return found
