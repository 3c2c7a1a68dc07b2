"""Taking a snapshot, inside the owner task of its VM.

  the record says `creating` -> the guest is paused -> disks, variables, TPM
      -> (with memory) its memory -> the guest continues -> the record says `ready`
      -> the VM stands behind it

A failure, or a cancellation: the guest continues, and nothing is left. A vmkernel that ends in
the middle: its successor resumes the guest and cleans up (recover.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from msgspec.structs import replace

from vmkernel.aio import run_to_end_then_cancel
from vmkernel.devices import Accelerator
from vmkernel.host.files import status
from vmkernel.model import ErrorCode, MicaError, Progress, SnapshotState, VmState
from vmkernel.qemu import QemuError, QmpCommandError, memory_image
from vmkernel.vm.guest.agent import FreezeReport
from vmkernel.vm.machine.interruptible import interruptible
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.nonvolatile import tpm_state
from vmkernel.vm.nonvolatile.variables import copy_variables
from vmkernel.vm.snapshots.disks import forget_disks, keep_disks
from vmkernel.vm.store import saved_memory
from vmkernel.vm.store.snapshot_records import SnapshotRecord, folder_of

__all__ = ["Tell", "copy_small", "set_current_snapshot", "take"]

_log = logging.getLogger(__name__)

Tell = Callable[[Progress], None]


async def take(machine: Machine, record: SnapshotRecord, tell: Tell) -> None:
    """Take a snapshot; durable on return."""
    folder = folder_of(machine.folder, record.id)
    try:
        await machine.snapshots.write(record)
        if record.memory:
            await asyncio.to_thread(saved_memory.check_space, folder, machine.definition)
        async with _quiet(machine, record) as report:
            await _keep(machine, record, folder, tell)
        size = 0
        with contextlib.suppress(OSError):
            size = (await asyncio.to_thread(status, folder / "suspend.state")).st_size
        ready = replace(
            record,
            state=SnapshotState.READY,
            memory_bytes=size,
            quiesced=report.quiet,
            reason=report.reason if record.quiesce else None,
        )
        await machine.snapshots.write(ready)
    except BaseException as error:
        await run_to_end_then_cancel(_undo(machine, record))
        if isinstance(error, QmpCommandError):
            what = f"Snapshot {record.id} of VM {machine.vm_id} can't be taken"
            raise saved_memory.refusal_of_qemu(what, error) from error
        raise
    await set_current_snapshot(machine, record.id)


async def set_current_snapshot(machine: Machine, snapshot: str | None) -> None:
    """Record which snapshot the VM's present state is based on."""
    await machine.define(replace(machine.definition, snapshot=snapshot))


@contextlib.asynccontextmanager
async def _quiet(machine: Machine, record: SnapshotRecord) -> AsyncIterator[FreezeReport]:
    """The guest's file systems are frozen inside the block, if requested and the guest runs."""
    if not record.quiesce or record.memory or machine.state is not VmState.RUNNING:
        why = "Its memory is part of the snapshot." if record.memory else "The guest does not run."
        yield FreezeReport(None, why)
        return
    async with machine.agent.frozen() as report:
        if not report.quiet and not record.best_effort:
            raise MicaError(
                ErrorCode.CONFLICT,
                f"Snapshot {record.id} of VM {machine.vm_id} was not taken, because its file"
                f" systems can't be frozen: {(report.reason or '').rstrip('.')}. Start the guest"
                " agent in the guest, or take it anyway by `best_effort`.",
            )
        yield report


async def _keep(machine: Machine, record: SnapshotRecord, folder: Path, tell: Tell) -> None:
    """Keep everything while the guest is paused."""
    runs = machine.connected and machine.state is VmState.RUNNING
    try:
        if runs:
            # A vmkernel that comes after us lets the guest go on by this note.
            machine.note_record(suspending_from=VmState.RUNNING)
            await machine.qmp().stop()
        tell(Progress(stage="keeping disks"))
        await keep_disks(machine, record)
        await asyncio.to_thread(copy_small, machine.folder, folder)
        if record.memory:
            await _keep_memory(machine, folder, tell)
    finally:
        if runs:
            await run_to_end_then_cancel(_go_on(machine))
        elif record.memory and machine.connected:
            await run_to_end_then_cancel(memory_image.take_disks_back(machine.qmp()))


async def _go_on(machine: Machine) -> None:
    with contextlib.suppress(QemuError, MicaError):
        await machine.qmp().cont()
    machine.note_record(suspending_from=None)


async def _keep_memory(machine: Machine, folder: Path, tell: Tell) -> None:
    """The memory, in the form of a suspended VM's; given up at a power-off."""

    def told(done: int, total: int) -> None:
        tell(Progress(done=done, total=total, unit="bytes", stage="writing memory"))

    topology = await saved_memory.topology(machine.qmp(), machine.record, machine.definition.spec)
    fd = await asyncio.to_thread(saved_memory.create, folder)
    try:
        await interruptible(machine, memory_image.save(machine.qmp(), fd, on_progress=told))
        tell(Progress(stage="flushing"))
        record = machine.record
        accelerator = record.accelerator if record is not None else Accelerator.TCG
        await asyncio.to_thread(
            saved_memory.seal, folder, fd, machine.definition, accelerator, topology
        )
    finally:
        os.close(fd)


def copy_small(source: Path, target: Path) -> None:
    """Copy the variables of the firmware and the state of the TPM; durable on return."""
    copy_variables(source, target, all_of_them=True)
    tpm_state.copy(source, target)


async def _undo(machine: Machine, record: SnapshotRecord) -> None:
    """Remove everything; if that fails too, the next start does it."""
    try:
        await forget_disks(machine, record)
        await machine.snapshots.remove(record.id)
    except (MicaError, QemuError, OSError) as error:
        _log.warning("VM %s: snapshot %s is half there: %s", machine.vm_id, record.id, error)
        await machine.snapshots.give_up(record)
