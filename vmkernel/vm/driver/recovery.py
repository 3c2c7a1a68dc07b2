"""The state of a VM after a restart of the vmkernel, and completing what was begun before it.

Only the owner task calls this, first of all.
"""

from __future__ import annotations

import asyncio
import contextlib

from vmkernel.host.files import remove
from vmkernel.host.unix_socket import connect_stream
from vmkernel.model import VmState
from vmkernel.qemu import QemuError
from vmkernel.vm.driver.reconnect import reconnect
from vmkernel.vm.launch.launcher import RunFolder
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.machine.messages import Reconnect
from vmkernel.vm.states import WITH_QEMU
from vmkernel.vm.store.launch_record import forget_record, read_record
from vmkernel.vm.store.vm_folder import scan

__all__ = ["keep_alive", "recover"]


async def recover(machine: Machine) -> None:
    """Find out the state after a restart of the vmkernel, and complete what was begun."""
    remove(machine.run_folder.nbd)  # nobody has a backup open any more
    active = machine.host.launcher.is_active(machine.vm_id)
    suspension, has_history = await asyncio.to_thread(scan, machine.folder, active=active)
    machine.find_memory(suspension)
    await _recover_process(machine, active)
    if has_history:
        from vmkernel.vm.snapshots.recover import recover_snapshots

        await recover_snapshots(machine)


def keep_alive(machine: Machine, reason: str) -> None:
    """Recovery failed, but its QEMU runs: its disks stay in use, and it can be powered off."""
    if machine.state not in WITH_QEMU:
        machine.set_state(VmState.RUNNING)
    machine.explain(reason)
    if machine.record is None:
        machine.find_record(read_record(machine.run_folder.record))
    if not machine.connected:
        machine.later(machine.host.timing.retry_s, Reconnect(machine.session))


async def _recover_process(machine: Machine, active: bool) -> None:
    folder = machine.run_folder
    record = read_record(folder.record)
    if machine.suspension is not None:
        await _recover_suspended(machine)
        return
    if active:
        machine.host.logs.follow(folder.log)
        if record is not None and record.reading:
            await _end_reader(machine, folder)
            return
        machine.find_running(record)
        await reconnect(machine)
        return
    how = await machine.host.launcher.collect(machine.vm_id)
    if record is None:
        return
    said = machine.host.last_lines(machine.vm_id) if how is not None else ""
    failure = f"QEMU ended unexpectedly ({how}{': ' if said else ''}{said})."
    machine.find_ended(record, failure if how is not None else None)


async def _end_reader(machine: Machine, folder: RunFolder) -> None:
    """End a QEMU that read the disks for a backup, in order: it keeps checkpoints in them."""
    with contextlib.suppress(OSError, TimeoutError, QemuError):
        machine.attach_qmp(
            await machine.host.open_qmp(
                connect_stream(folder.qmp), machine.vm_id, machine.host.timing.reconnect_s
            )
        )
    await machine.end_qemu()
    forget_record(folder.record)


async def _recover_suspended(machine: Machine) -> None:
    """The memory on disk is the truth: a QEMU that is left over was being ended, or had been
    started and has not run."""
    if machine.host.launcher.is_active(machine.vm_id):
        await machine.end_qemu()
    await machine.host.launcher.collect(machine.vm_id)
    machine.find_suspended()
