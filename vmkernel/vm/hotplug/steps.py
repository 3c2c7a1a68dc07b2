"""The steps of a change of a running VM: what each does over QMP, and how it is undone.

A step's `mark` changes the spec to what is true once it is done: the stored spec names what QEMU
has.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import Protocol

from msgspec.structs import replace as with_fields

from vmkernel.devices import (
    SETTINGS,
    Family,
    NicPlan,
    TapBackend,
    UserBackend,
)
from vmkernel.devices.defaults import disk_bus_of
from vmkernel.devices.hotplug import (
    dimm_commands,
    disk_commands,
    nic_commands,
)
from vmkernel.devices.memory import DIMMS_MAX, dimm_memory, huge_page_bytes
from vmkernel.devices.nic import link_commands, netdev_of
from vmkernel.devices.topology import usb_devices
from vmkernel.devices.usb import STORAGE_PORTS
from vmkernel.model import (
    CdromSpec,
    DiskBus,
    DiskSpec,
    ErrorCode,
    MicaError,
    NicSpec,
    NicStatus,
    VmSpec,
)
from vmkernel.model.vm_differences import Difference
from vmkernel.qemu import QemuError, QmpCommandError, block_graph, hotplug
from vmkernel.resources import expected_bytes
from vmkernel.vm.context import VmContext
from vmkernel.vm.driver import media
from vmkernel.vm.driver.removals import Removal, drop, without
from vmkernel.vm.hotplug.plan import Changes
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.spec.scope import restored
from vmkernel.vm.start.files import disk_plan, with_access

__all__ = ["Step", "removals_of", "steps_of"]


class Step(Protocol):
    """One step. `do` may find the remains of an earlier attempt with a lost answer. It raises
    QEMU's errors: after QmpCommandError and MicaError it has changed nothing, after other
    QemuErrors that isn't known.
    """

    settled: bool
    """True if `settle` of removals.py finds out later whether it was done."""

    async def do(self, running: RunningVm) -> None: ...

    async def undo(self, running: RunningVm) -> bool:
        """Undo it; False if that isn't possible."""
        ...

    def unmark(self, spec: VmSpec) -> VmSpec:
        """The spec without it."""
        ...


@dataclass
class _AddDisk:
    host: VmContext
    spec: VmSpec
    disk: DiskSpec
    family: Family
    settled = True

    async def do(self, running: RunningVm) -> None:
        key, qmp, tag = self.disk.key or "", running.qmp, secrets.token_hex(3)
        await hotplug.make_room(qmp, key, disk=True)
        position = await self._position(running)
        volume = self.host.storage.volume(self.disk.volume)
        plan = await asyncio.to_thread(with_access, disk_plan(self.spec, self.disk, volume))
        nodes = []
        try:
            layers = []
            for number, layer in enumerate(plan.backing):
                nodes.append(f"{key}-back{number}-file-{tag}")
                given = await block_graph.give_file(
                    qmp, layer.path, nodes[-1], read_only=True, direct=plan.direct
                )
                layers.append(replace(layer, path=given.path))
            nodes.append(f"{key}-file-{tag}")
            given = await block_graph.give_file(
                qmp, plan.path, nodes[-1], read_only=plan.read_only, direct=plan.direct
            )
            plan = replace(plan, path=given.path, backing=tuple(layers))
            commands = disk_commands(plan, self.family, tag=tag, position=position)
            await block_graph.add_nodes(qmp, commands)
        except (QmpCommandError, OSError):
            for node in nodes:
                await block_graph.take_file_back(qmp, node)
            raise

    async def _position(self, running: RunningVm) -> int | None:
        """A free place, on a bus on which keys don't determine it: chosen here and not by QEMU, so
        that it is known when the VM is suspended.
        """
        if disk_bus_of(self.spec, self.disk) is not DiskBus.USB:
            return None
        taken = dict(await hotplug.usb_units(running.qmp, usb_devices(self.spec))).values()
        free = [place for place in range(STORAGE_PORTS) if place not in taken]
        if not free:
            text = f"All {STORAGE_PORTS} USB ports for storage are taken."
            raise MicaError.field("/spec/disks", text, ErrorCode.CONFLICT)
        return free[0]

    async def undo(self, running: RunningVm) -> bool:
        return await _take_away(running, self.disk.key or "", disk=True)

    def unmark(self, spec: VmSpec) -> VmSpec:
        return without(spec, self.disk.key or "")


@dataclass
class _AddNic:
    host: VmContext
    spec: VmSpec
    nic: NicSpec
    family: Family
    settled = True

    async def do(self, running: RunningVm) -> None:
        key, qmp = self.nic.key or "", running.qmp
        await hotplug.make_room(qmp, key, netdev=netdev_of(key))
        (port,) = await self.host.network.open_ports(running.vm_id, [self.nic])
        try:
            backend: TapBackend | UserBackend = UserBackend()
            if port.tap_fd is not None:
                names = [f"{key}-tap", f"{key}-vhost"]
                await qmp.name_fd(port.tap_fd, names[0])
                if port.vhost_fd is not None:
                    await qmp.name_fd(port.vhost_fd, names[1])
                vhost = names[1] if port.vhost_fd is not None else None
                backend = TapBackend(names[0], vhost, port.tap or "")
            plan = NicPlan.of(self.spec, self.nic, backend)
            await block_graph.add_nodes(qmp, nic_commands(plan, self.family))
        finally:
            port.close()
        if not self.nic.connected:
            await hotplug.apply(qmp, link_commands(self.spec, key))
        if running.record is not None:
            status = NicStatus(key=key, mac=plan.mac, port_group=port.port_group, tap=port.tap)
            running.keep_record(with_fields(running.record, nics=(*running.record.nics, status)))

    async def undo(self, running: RunningVm) -> bool:
        return await _take_away(running, self.nic.key or "", disk=False)

    def unmark(self, spec: VmSpec) -> VmSpec:
        return without(spec, self.nic.key or "")


@dataclass
class _Set:
    """A setting of a device."""

    found: Difference
    old: VmSpec
    new: VmSpec
    settled = False

    async def do(self, running: RunningVm) -> None:
        await self._apply(running, self.new)

    async def undo(self, running: RunningVm) -> bool:
        await self._apply(running, self.old)
        return True

    def unmark(self, spec: VmSpec) -> VmSpec:
        return restored(spec, self.found)

    async def _apply(self, running: RunningVm, spec: VmSpec) -> None:
        commands = SETTINGS[self.found.path].commands(spec, self.found.key)
        await hotplug.apply(running.qmp, commands)


@dataclass
class _ChangeMedium:
    host: VmContext
    old: CdromSpec
    new: CdromSpec
    settled = False

    async def do(self, running: RunningVm) -> None:
        """Should the new disc not go in, the old one is put back."""
        try:
            await media.change(self.host, running.qmp, self.new)
        except (MicaError, QmpCommandError, OSError):
            await media.change(self.host, running.qmp, self.old)
            raise

    async def undo(self, running: RunningVm) -> bool:
        await media.change(self.host, running.qmp, self.old)
        return True

    def unmark(self, spec: VmSpec) -> VmSpec:
        cdroms = tuple(
            with_fields(c, image=self.old.image) if c.key == self.new.key else c
            for c in spec.cdroms
        )
        return with_fields(spec, cdroms=cdroms)


@dataclass
class _AddProcessors:
    count: int
    done: int = 0
    settled = False

    async def do(self, running: RunningVm) -> None:
        self.done = await hotplug.add_processors(running.qmp, self.count)
        if self.done < self.count:
            raise MicaError(
                ErrorCode.UNAVAILABLE,
                f"QEMU took {self.done} of {self.count} vCPUs; read the VM again and repeat "
                "the change.",
            )

    async def undo(self, running: RunningVm) -> bool:  # noqa: ARG002 - a Step's
        """What the guest has taken up, it keeps."""
        return False

    def unmark(self, spec: VmSpec) -> VmSpec:
        count = spec.cpus.count - self.count + self.done
        return with_fields(spec, cpus=with_fields(spec.cpus, count=count))


@dataclass
class _AddMemory:
    host: VmContext
    spec: VmSpec
    more_bytes: int
    settled = False

    async def do(self, running: RunningVm) -> None:
        taken = await hotplug.dimm_numbers(running.qmp)
        number = next((n for n in range(DIMMS_MAX) if n not in taken), None)
        if number is not None:
            await hotplug.drop_object(running.qmp, dimm_memory(number))
        if number is None:
            raise MicaError.field(
                "/spec/memory_bytes",
                "All memory slots are in use; restart the VM to free them.",
                ErrorCode.CONFLICT,
            )
        record = running.record
        if record is not None:
            pool_bytes = record.pool_bytes + await self._from_pool(running.vm_id)
            need = expected_bytes(self.spec.memory_bytes, record.accelerator) - pool_bytes
            self.host.admission.admit(running.vm_id, need)
        try:
            await block_graph.add_nodes(
                running.qmp,
                dimm_commands(number, self.more_bytes, self.spec.memory.huge_pages),
            )
        except QemuError:
            if record is not None:
                self.host.admission.note(running.vm_id, record.memory_bytes)
            raise
        if record is not None:
            # If the answer was lost, settling counts what came as ordinary memory.
            running.keep_record(with_fields(record, memory_bytes=need, pool_bytes=pool_bytes))

    async def _from_pool(self, vm_id: str) -> int:
        """What the host's pool of huge pages gives; it costs no ordinary memory."""
        page = huge_page_bytes(self.spec.memory.huge_pages)
        if page is None:
            return 0
        pool = self.host.huge_pages
        return self.more_bytes - await asyncio.to_thread(pool.admit, vm_id, page, self.more_bytes)

    async def undo(self, running: RunningVm) -> bool:  # noqa: ARG002 - a Step's
        """What the guest has taken up, it keeps."""
        return False

    def unmark(self, spec: VmSpec) -> VmSpec:
        return with_fields(spec, memory_bytes=spec.memory_bytes - self.more_bytes)


def steps_of(
    host: VmContext, changes: Changes, old: VmSpec, new: VmSpec, family: Family
) -> list[Step]:
    """The steps that don't need the guest's consent, in order; the spec that is stored meanwhile is
    `new` with all that is going to be removed.
    """
    old_cdroms = {c.key: c for c in old.cdroms}
    steps: list[Step] = [_AddDisk(host, new, disk, family) for disk in changes.new_disks]
    steps += [_AddNic(host, new, nic, family) for nic in changes.new_nics]
    first = [found for found in changes.settings if not SETTINGS[found.path].last]
    steps += [_Set(found, old, new) for found in first]
    steps += [_ChangeMedium(host, old_cdroms[cd.key], cd) for cd in changes.media]
    if changes.memory_bytes:
        steps.append(_AddMemory(host, new, changes.memory_bytes))
    steps += [_Set(found, old, new) for found in changes.settings if found not in first]
    if changes.cpus:
        steps.append(_AddProcessors(changes.cpus))
    return steps


def removals_of(changes: Changes, old: VmSpec) -> list[Removal]:
    """The steps that may need the guest's consent."""
    gone = [Removal.of_disk(old, disk) for disk in changes.old_disks]
    return gone + [Removal.of_nic(nic) for nic in changes.old_nics]


async def _take_away(running: RunningVm, key: str, *, disk: bool) -> bool:
    """Remove a device that was just added; False if the guest has it already and does not release
    it at once.
    """
    await hotplug.unplug(running.qmp, key)
    for _ in range(20):
        if key not in await hotplug.devices(running.qmp) and await drop(running, key, disk=disk):
            return True
        await asyncio.sleep(0.1)
    return False
