"""The disks of a VM that is off, for a backup: read by a QEMU whose guest never runs, so that they
are read as those of a running VM are, in the same jail, with the same checkpoints.

  opened (inside the owner task) -> read by the backup -> closed
       a vmkernel that is killed meanwhile: its successor ends that QEMU (machine.py)

The VM counts as off all the while; its disks are held (`at_disks`), and its opener prevents a
start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from vmkernel.host.files import remove
from vmkernel.model import (
    CheckpointDisk,
    DiskBus,
    DiskCache,
    DisplayModel,
    ErrorCode,
    Firmware,
    HotPlugSpec,
    MemorySpec,
    MicaError,
    VmSpec,
    VolumeFormat,
)
from vmkernel.qemu import Qmp
from vmkernel.qemu.point_in_time import CHECKPOINT
from vmkernel.storage.ports import Storage
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.driver.suspend import kill_stray_qemu
from vmkernel.vm.launch.ending import end_process
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.start.start import start_qemu
from vmkernel.vm.states import AT_REST, VmRequest
from vmkernel.vm.store.definition import VmDefinition

__all__ = ["OfflineDiskReader", "checkpoints_of", "forget_checkpoint", "reader_of"]

_log = logging.getLogger(__name__)

_MEMORY_BYTES = 64 << 20


def reader_of(definition: VmDefinition, storage: Storage) -> VmDefinition:
    """The VM with its disks and little else. Volumes with linked clones are not even opened for
    writing; on the bus used, which no guest sees, every disk can be read-only.
    """
    spec = definition.spec
    disks = tuple(
        replace(
            disk,
            bus=DiskBus.VIRTIO_SCSI,
            cache=DiskCache.NONE,
            boot_index=None,
            read_only=disk.read_only or bool(storage.children(disk.volume)),
        )
        for disk in spec.disks
    )
    only = VmSpec(
        datastore=spec.datastore,
        guest_os=spec.guest_os,
        memory_bytes=_MEMORY_BYTES,
        memory=MemorySpec(balloon=False),
        firmware=Firmware.BIOS,
        display=DisplayModel.NONE,
        disks=disks,
        serial_ports=0,
        guest_agent=False,
        tablet=False,
        rng=False,
        hot_plug=HotPlugSpec(disks=0, nics=0),
    )
    return replace(definition, spec=only)


@dataclass
class OfflineDiskReader:
    """The QEMU; `close` it."""

    running: RunningVm
    _machine: Machine
    _qmp: Qmp
    _closed: bool = False

    @classmethod
    async def open(cls, driver: VmDriver) -> OfflineDiskReader:
        """Start it; `conflict` if the VM is not off any more."""

        async def inside(machine: Machine) -> OfflineDiskReader:
            if driver.state not in AT_REST:
                raise MicaError(
                    ErrorCode.CONFLICT, f"VM {driver.vm_id} is {driver.state} now; retry."
                )
            await kill_stray_qemu(machine)
            machine.hold_disks()
            try:
                reader = reader_of(machine.definition, machine.host.storage)
                started = await start_qemu(machine.host, reader, machine.folder, reading=True)
            except BaseException:
                machine.release_disks()
                raise
            running = RunningVm(
                qmp=started.qmp,
                definition=machine.definition,
                record=started.record,
                folder=machine.run_folder,
                write_record=lambda _: None,
            )
            return cls(running, machine, started.qmp)

        return await driver.inside(VmRequest.SNAPSHOT, inside)

    @property
    def alive(self) -> bool:
        """True while it is there."""
        return self._machine.host.launcher.is_active(self._machine.vm_id)

    async def close(self) -> None:
        """End it, which makes its checkpoints durable; the VM's disks are free on return."""
        if self._closed:
            return
        self._closed = True
        await asyncio.shield(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        machine, timing = self._machine, self._machine.host.timing
        launcher, vm_id = machine.host.launcher, machine.vm_id
        if not await end_process(
            launcher,
            vm_id,
            self._qmp,
            self._qmp.close,
            quit_s=timing.quit_s,
            kill_s=timing.kill_s,
        ):
            # A start would end it first; until then nothing else may have the disks.
            _log.error("the QEMU that reads the disks of VM %s can't be stopped", vm_id)
            return
        machine.host.admission.release(vm_id)
        remove(machine.run_folder.record)
        machine.release_disks()
        try:
            await launcher.collect(vm_id)
        except MicaError as error:  # it is gone all the same; the next start collects it
            _log.warning("%s", error)


async def checkpoints_of(driver: VmDriver) -> dict[str, list[CheckpointDisk]]:
    """The checkpoints in the disks of a VM that is off, by their names."""

    async def inside(machine: Machine) -> dict[str, list[CheckpointDisk]]:
        found: dict[str, list[CheckpointDisk]] = {}
        for key, bitmaps in (await _bitmaps(machine)).items():
            for name, whole in bitmaps.items():
                found.setdefault(name, []).append(
                    CheckpointDisk(key=key, dirty_bytes=None, usable=whole, persistent=True)
                )
        return found

    return await driver.inside(VmRequest.SNAPSHOT, inside)


async def forget_checkpoint(driver: VmDriver, checkpoint: str) -> None:
    """Remove it from all disks of a VM that is off; `not-found` if none has it."""

    async def inside(machine: Machine) -> None:
        machine.locks.check(VmRequest.HOLD)
        storage = machine.host.storage
        disks = {disk.key: disk.volume for disk in machine.definition.spec.disks}
        having = [key for key, found in (await _bitmaps(machine)).items() if checkpoint in found]
        if not having:
            raise MicaError(
                ErrorCode.NOT_FOUND, f"VM {driver.vm_id} has no checkpoint {checkpoint}."
            )
        with machine.disks_held():
            for key in having:
                volume = storage.volume(disks[key])
                await storage.qemu_img.remove_bitmap(f"{CHECKPOINT}{checkpoint}", volume.path)

    await driver.inside(VmRequest.SNAPSHOT, inside)


async def _bitmaps(machine: Machine) -> Mapping[str, Mapping[str, bool]]:
    """Each disk's checkpoints, and whether they are whole; raw disks keep none."""
    found: dict[str, dict[str, bool]] = {}
    storage = machine.host.storage
    for disk in machine.definition.spec.disks:
        volume = storage.volume(disk.volume)
        if volume.format is not VolumeFormat.QCOW2:
            continue
        bitmaps = await storage.qemu_img.bitmaps(volume.path)
        found[disk.key or ""] = {
            name.removeprefix(CHECKPOINT): whole
            for name, whole in bitmaps.items()
            if name.startswith(CHECKPOINT)
        }
    return found
