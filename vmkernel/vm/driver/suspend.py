"""Suspending a VM to disk and resuming it, inside its owner task.

suspend the guest is paused -> its memory is written, flushed, sealed -> QEMU is ended
          a failure before the seal, or a cancellation: the guest continues as before
resume    the image is proven -> QEMU loads it -> the image counts no more -> the guest runs
          a failure before "counts no more": QEMU is ended, and the VM is suspended as before
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os

from vmkernel.aio import run_to_end
from vmkernel.devices import Accelerator
from vmkernel.model import Progress, VmState
from vmkernel.qemu import QemuError, Qmp, QmpCommandError, QmpLostError, memory_image
from vmkernel.qemu.guest_agent import agent_is_open
from vmkernel.vm.machine.interruptible import interruptible
from vmkernel.vm.machine.machine import Machine, words
from vmkernel.vm.machine.messages import PendingRequest
from vmkernel.vm.start.start import start_qemu
from vmkernel.vm.store import saved_memory
from vmkernel.vm.store.saved_memory import Suspension

__all__ = ["discard_state", "kill_stray_qemu", "resume_from_disk", "suspend"]

_log = logging.getLogger(__name__)


async def suspend(machine: Machine, ask: PendingRequest) -> None:
    """Write the memory to disk and end QEMU."""
    qmp, before = machine.qmp(), machine.state
    await asyncio.to_thread(saved_memory.check_space, machine.folder, machine.definition)
    machine.note_record(suspending_from=before)
    machine.set_state(VmState.SUSPENDING)
    try:
        await qmp.stop()
        sealed = await interruptible(machine, _save(machine, qmp, ask), asked=ask.done)
    except BaseException as error:
        await asyncio.shield(_as_before(machine, qmp, before, error))
        if isinstance(error, QmpCommandError):
            raise saved_memory.refusal_of_qemu(
                f"VM {machine.vm_id} can't be suspended to disk and keeps running", error
            ) from error
        raise
    machine.take_memory(sealed)
    await machine.end_qemu()
    machine.qemu_ended(VmState.SUSPENDED)
    me = asyncio.current_task()
    if me is not None and me.cancelling():  # came too late to stop the sealing, and counts now
        raise asyncio.CancelledError


async def resume_from_disk(machine: Machine, ask: PendingRequest) -> None:
    """Start QEMU, load the memory, and let the guest continue."""
    known, host = machine.suspension, machine.host
    assert known is not None
    await kill_stray_qemu(machine)
    machine.set_state(VmState.STARTING)
    machine.console.clear()
    try:
        saved_memory.check_fits(known, machine.definition, await host.accelerator())
        assert known.image is not None
        _tell(ask, "verifying the memory image", 0, known.image.size_bytes)
        await asyncio.to_thread(saved_memory.verify, machine.folder, known.image, machine.vm_id)
        topology = known.topology(machine.definition.spec)
        started = await start_qemu(host, machine.definition, machine.folder, incoming=topology)
        machine.qemu_started(started.record, started.qmp, resuming=True)
        await interruptible(machine, _load(machine, started.qmp, known, ask), asked=ask.done)
        await machine.apply_panic_action(started.qmp, fresh=True)
        await machine.forget_memory()
        await started.qmp.cont()
        with contextlib.suppress(QmpCommandError):
            machine.agent.note_channel(await agent_is_open(started.qmp))
        machine.agent.note_resumed()
    except BaseException as error:
        if machine.connected:
            await asyncio.shield(machine.end_qemu())
        machine.qemu_ended(VmState.STOPPED, f"The last start failed: {words(error)}", end=None)
        raise
    machine.note_record(resuming=False)
    machine.set_state(VmState.RUNNING)
    await asyncio.to_thread(saved_memory.sweep, machine.folder)


async def discard_state(machine: Machine, _: PendingRequest) -> None:
    """Throw the memory away: the guest finds its disks as after a power cut."""
    await machine.forget_memory()
    machine.set_state(VmState.STOPPED)
    await asyncio.to_thread(saved_memory.sweep, machine.folder)


async def kill_stray_qemu(machine: Machine) -> None:
    """Before a start: end a QEMU of this VM that should not exist."""
    if machine.host.launcher.is_active(machine.vm_id):
        _log.warning("VM %s: a QEMU of unknown origin is ended", machine.vm_id)
        await machine.end_qemu()
        machine.release_disks()


async def _save(machine: Machine, qmp: Qmp, ask: PendingRequest) -> Suspension:
    folder = machine.folder
    topology = await saved_memory.topology(qmp, machine.record, machine.definition.spec)
    fd = await asyncio.to_thread(saved_memory.create, folder)
    try:
        await memory_image.save(
            qmp, fd, on_progress=lambda done, total: _tell(ask, "writing memory", done, total)
        )
        _tell(ask, "flushing", 0, 0)
        record = machine.record
        accelerator = record.accelerator if record is not None else Accelerator.TCG
        sealing = asyncio.create_task(
            asyncio.to_thread(
                saved_memory.seal, folder, fd, machine.definition, accelerator, topology
            )
        )
        return await run_to_end(sealing)
    finally:
        os.close(fd)


async def _load(machine: Machine, qmp: Qmp, known: Suspension, ask: PendingRequest) -> None:
    assert known.image is not None
    with saved_memory.open_image(machine.folder) as file:
        try:
            await memory_image.load(
                qmp,
                file.fileno(),
                on_progress=lambda done, total: _tell(ask, "reading memory", done, total),
            )
        except QmpCommandError as error:
            said = machine.host.last_lines(machine.vm_id)
            why = f"{error}{f' (QEMU: {said})' if said else ''}"
            raise saved_memory.useless(machine.vm_id, why) from error
        except QmpLostError as error:
            said = machine.host.last_lines(machine.vm_id) or "QEMU ended without a message"
            raise saved_memory.useless(machine.vm_id, said) from error


async def _as_before(machine: Machine, qmp: Qmp, before: VmState, error: BaseException) -> None:
    """The suspension failed: the VM continues."""
    machine.set_state(before, None if before is VmState.RUNNING else machine.reason)
    try:
        if before is VmState.RUNNING:
            await qmp.cont()
        else:
            await memory_image.take_disks_back(qmp)
    except QemuError as failure:
        _log.warning("VM %s: %s", machine.vm_id, failure)
    machine.note_record(suspending_from=None)
    with contextlib.suppress(OSError):
        await asyncio.to_thread(saved_memory.sweep, machine.folder)
    machine.publish("vm.suspend-failed", {"why": words(error)}, words(error))


def _tell(ask: PendingRequest, stage: str, done: int, total: int) -> None:
    if ask.on_progress is not None:
        ask.on_progress(Progress(done=done, total=total, unit="bytes", stage=stage))
