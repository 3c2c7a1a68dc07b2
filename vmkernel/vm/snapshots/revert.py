"""Reverting a VM to a snapshot, inside its owner task.

  what was kept is proven to be there -> QEMU is ended
      -> the journal says that the revert has begun -> disks, variables, TPM -> the spec of then
      -> (with memory) the VM is suspended with the memory of then -> the journal is removed

From the journal on there is no way back: recovery after a crash, or a start of the VM, begins
again there (recover.py), and each step can be done twice. Before it nothing but QEMU is gone.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec.structs import replace

from vmkernel.host.files import fsync_directory, link, read_limited, remove, write_durably
from vmkernel.model import MicaError, VmSpec, VmState
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.snapshots.create import copy_small
from vmkernel.vm.snapshots.disks import check_kept, restore_disks
from vmkernel.vm.spec.scope import after_revert
from vmkernel.vm.states import OFF
from vmkernel.vm.store import saved_memory
from vmkernel.vm.store.snapshot_records import (
    Revert,
    SnapshotRecord,
    begin_revert,
    end_revert,
    folder_of,
)

__all__ = ["finish", "revert", "spec_after"]

_STATE, _SUSPENSION = "suspend.state", "suspend.json"
_SUSPENSION_MAX = 1 << 18


def spec_after(now: VmSpec, record: SnapshotRecord) -> VmSpec:
    """The spec that a VM has after it went back."""
    return after_revert(now, record.spec)


async def revert(machine: Machine, record: SnapshotRecord) -> None:
    """Revert; MicaError, with nothing changed, if that isn't possible."""
    await check_kept(machine, record)
    if machine.state not in OFF or machine.host.launcher.is_active(machine.vm_id):
        await machine.end_qemu()
        machine.qemu_ended(VmState.STOPPED)
    await asyncio.to_thread(begin_revert, machine.folder, Revert(snapshot=record.id))
    await finish(machine, record)


async def finish(machine: Machine, record: SnapshotRecord) -> None:
    """Everything after the journal."""
    if machine.state not in OFF or machine.host.launcher.is_active(machine.vm_id):
        await machine.end_qemu()
    if machine.suspension is not None:
        await machine.forget_memory()
    machine.qemu_ended(VmState.STOPPED)
    try:
        await restore_disks(machine, record)
        folder = folder_of(machine.folder, record.id)
        await asyncio.to_thread(copy_small, folder, machine.folder)
        known = machine.definition
        new = replace(
            known,
            spec=spec_after(known.spec, record),
            revision=known.revision + 1,
            snapshot=record.id,
        )
        await machine.define(new)
        if record.memory:
            await asyncio.to_thread(_suspend, folder, machine.folder)
            machine.find_memory(saved_memory.find(machine.folder))
        await asyncio.to_thread(end_revert, machine.folder)
    except (MicaError, OSError) as error:
        machine.set_state(
            VmState.UNUSABLE,
            f"Reverting to snapshot {record.id} was interrupted ({error}): fix that and restart"
            " the vmkernel, which completes it.",
        )
        raise
    machine.qemu_ended(VmState.SUSPENDED if record.memory else VmState.STOPPED)


def _suspend(snapshot: Path, vm_folder: Path) -> None:
    """Let the VM be one that was suspended with the snapshot's memory; they share the file."""
    state = vm_folder / _STATE
    remove(state)
    link(snapshot / _STATE, state)
    fsync_directory(vm_folder)
    write_durably(vm_folder / _SUSPENSION, read_limited(snapshot / _SUSPENSION, _SUSPENSION_MAX))
