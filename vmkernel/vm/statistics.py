"""The statistics of all VMs, at a bounded cost.

who asks --> a copy not older than a second? --> that
                 no --> one collection for all who wait:
                        the kernel's counters once; of each VM that runs its process, and by QMP
                        its disks and balloon, a few VMs at a time, each within a time-out

If a QEMU doesn't answer in time, only its own disks' values are missing, and no one waits for it:
its answer of the last minute is returned, and a late answer serves the next request.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vmkernel import clock
from vmkernel.devices.balloon import BALLOON
from vmkernel.host.counters import (
    InterfaceCounters,
    interface_counters,
    process_cpu_seconds,
    resident_bytes,
    thread_times,
)
from vmkernel.model import (
    DiskStatistics,
    GuestMemory,
    MemoryStatistics,
    MicaError,
    NicStatistics,
    NicStatus,
    VcpuStatistics,
    Vm,
    VmStatistics,
)
from vmkernel.qemu.statistics import balloon_statistics, disk_statistics
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.states import WITH_QEMU, VmRequest

__all__ = ["VmMetrics"]

KEPT_S = 1.0
_TIMEOUT_S = 3.0
"""For one QEMU's answers."""
_PATIENCE_S = 0.3
_PATIENCE_EACH_S = 0.002
"""How long to wait for all together: a slower QEMU answers for the next request."""
_TOLD_KEPT_S = 60.0
_SILENT_S = 10.0
"""One that doesn't answer, or talks nonsense, is left alone for a while."""
_AT_ONCE = 8
_VCPU = re.compile(r"CPU (\d+)/")

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class _Qemu:
    """QEMU's values."""

    disks: tuple[DiskStatistics, ...]
    balloon_bytes: int | None
    guest: GuestMemory | None


class VmMetrics:
    """Collects the statistics and keeps them for a moment."""

    def __init__(
        self,
        vms: VmInventory,
        *,
        kept_s: float = KEPT_S,
        timeout_s: float = _TIMEOUT_S,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._vms = vms
        self._kept_s = kept_s
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._lock = asyncio.Lock()
        self._kept: tuple[VmStatistics, ...] = ()
        self._kept_until = float("-inf")
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, tuple[float, _Qemu]] = {}
        """The last answer of each QEMU, and its time."""
        self._silent: dict[str, float] = {}
        """Those that did not answer: until when they aren't asked again."""

    async def one(self, vm_id: str) -> VmStatistics:
        """One VM's; `not-found` if there is none."""
        vm = self._vms.get(vm_id)
        if vm.status.state in WITH_QEMU:
            self._silent.pop(vm_id, None)
            self._told.pop(vm_id, None)
            await asyncio.wait((self._ask(vm_id),), timeout=self._timeout_s)
        return self._assemble(self._vms.get(vm_id), interface_counters())

    async def running(self) -> tuple[VmStatistics, ...]:
        """Those of all VMs that have a QEMU, by id."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            if loop.time() < self._kept_until:
                return self._kept
            wanted = [v for v, state in sorted(self._vms.states().items()) if state in WITH_QEMU]
            self._forget(wanted)
            asks = [self._ask(vm_id) for vm_id in wanted if vm_id not in self._silent]
            if asks:
                patience_s = self._patience_s + len(asks) * _PATIENCE_EACH_S
                await asyncio.wait(asks, timeout=patience_s)
            interfaces = interface_counters()
            found = []
            for vm_id in wanted:
                with contextlib.suppress(MicaError):  # deleted meanwhile
                    found.append(self._assemble(self._vms.get(vm_id), interfaces))
            self._kept = tuple(found)
            self._kept_until = loop.time() + self._kept_s
            return self._kept

    def _forget(self, wanted: Sequence[str]) -> None:
        """Remove what is out of date."""
        now, known = asyncio.get_running_loop().time(), frozenset(wanted)
        self._silent = {v: end for v, end in self._silent.items() if now < end and v in known}
        self._told = {
            v: (at, told)
            for v, (at, told) in self._told.items()
            if now - at < _TOLD_KEPT_S and v in known
        }

    def _assemble(self, vm: Vm, interfaces: Mapping[str, InterfaceCounters]) -> VmStatistics:
        vm_id, assigned = vm.id, vm.spec.memory_bytes
        if vm.status.state not in WITH_QEMU:
            return VmStatistics(
                id=vm_id,
                at=clock.now(),
                state=vm.status.state,
                memory=MemoryStatistics(assigned_bytes=assigned),
            )
        _, told = self._told.get(vm_id, (0.0, None))
        pid = self._vms.process_of(vm_id)
        return VmStatistics(
            id=vm_id,
            at=clock.now(),
            state=vm.status.state,
            complete=told is not None,
            started_at=vm.status.started_at,
            cpu_seconds=0.0 if pid is None else process_cpu_seconds(pid),
            vcpus=() if pid is None else _vcpus(pid),
            memory=MemoryStatistics(
                assigned_bytes=assigned,
                resident_bytes=0 if pid is None else resident_bytes(pid),
                balloon_bytes=told.balloon_bytes if told else None,
                guest=told.guest if told else None,
            ),
            disks=told.disks if told else (),
            nics=tuple(
                _nic(nic, nic.key or f"nic{number}", interfaces)
                for number, nic in enumerate(vm.status.nics)
            ),
        )

    def _ask(self, vm_id: str) -> asyncio.Task[None]:
        """Ask a VM's QEMU, or join a request in progress; the answer goes to `_told`."""
        task = self._asking.get(vm_id)
        if task is None:
            task = asyncio.create_task(self._ask_qemu(vm_id), name=f"figures-of-{vm_id}")
            self._asking[vm_id] = task
            task.add_done_callback(lambda _: self._asking.pop(vm_id, None))
        return task

    async def _ask_qemu(self, vm_id: str) -> None:
        async def ask(vm: RunningVm) -> _Qemu:
            disks = await disk_statistics(vm.qmp)
            if not vm.definition.spec.memory.balloon:
                return _Qemu(disks, None, None)
            return _Qemu(disks, *await balloon_statistics(vm.qmp, BALLOON))

        loop = asyncio.get_running_loop()
        try:
            async with self._room, asyncio.timeout(self._timeout_s):
                told = await self._vms.use(vm_id, VmRequest.QUERY, ask)
        except (TimeoutError, MicaError):
            self._told.pop(vm_id, None)
            self._silent[vm_id] = loop.time() + _SILENT_S
        else:
            self._told[vm_id] = (loop.time(), told)


def _vcpus(pid: int) -> tuple[VcpuStatistics, ...]:
    found = []
    for thread in thread_times(pid):
        if match := _VCPU.match(thread.name):
            found.append(
                VcpuStatistics(
                    index=int(match[1]),
                    seconds=thread.seconds,
                    waited_seconds=thread.waited_seconds,
                )
            )
    return tuple(sorted(found, key=lambda vcpu: vcpu.index))


def _nic(nic: NicStatus, key: str, interfaces: Mapping[str, InterfaceCounters]) -> NicStatistics:
    """A tap sends what its guest receives."""
    tap = interfaces.get(nic.tap) if nic.tap else None
    if tap is None:
        return NicStatistics(key=key)
    return NicStatistics(
        key=key,
        received_bytes=tap.sent_bytes,
        received_packets=tap.sent_packets,
        received_dropped=tap.sent_dropped,
        sent_bytes=tap.received_bytes,
        sent_packets=tap.received_packets,
        sent_dropped=tap.received_dropped,
    )
