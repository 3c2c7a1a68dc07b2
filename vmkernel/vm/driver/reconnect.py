"""A session with QEMU that broke: whether QEMU has ended, and a new session if it has not.

Only the owner task calls this.
"""

from __future__ import annotations

import asyncio
import contextlib

from vmkernel.devices.serial import RINGBUF
from vmkernel.host.unix_socket import connect_stream
from vmkernel.model import VmState
from vmkernel.qemu import (
    GuestEnded,
    QemuError,
    Qmp,
    QmpCommandError,
    QmpLostError,
    RunState,
    memory_image,
)
from vmkernel.qemu.guest_agent import agent_is_open
from vmkernel.vm.launch.launcher import RunFolder
from vmkernel.vm.machine.exit_reason import verdict
from vmkernel.vm.machine.machine import Machine, words
from vmkernel.vm.machine.messages import Reconnect
from vmkernel.vm.start.start import SERIAL_RING_BYTES
from vmkernel.vm.store import saved_memory

__all__ = ["on_link_lost", "reconnect"]


async def on_link_lost(machine: Machine) -> None:
    """The session broke: because QEMU ended, in order or not, or for a while only."""
    ended = machine.ended
    await machine.drop_link()
    timing = machine.host.timing
    if await machine.host.launcher.wait_gone(
        machine.vm_id, timing.quit_s if ended else timing.linger_s
    ):
        how = await machine.host.launcher.collect(machine.vm_id)
        _gone(machine, ended, how)
    elif ended is not None:
        await machine.end_qemu()
        _gone(machine, ended, None)
    else:
        await reconnect(machine)


async def reconnect(machine: Machine) -> None:
    """Open a session with a QEMU that is running; try again later if it doesn't answer."""
    folder = machine.run_folder
    if not machine.host.launcher.is_active(machine.vm_id):
        _gone(machine, None, await machine.host.launcher.collect(machine.vm_id))
        return
    try:
        qmp = await machine.host.open_qmp(
            connect_stream(folder.qmp), machine.vm_id, machine.host.timing.reconnect_s
        )
    except (OSError, TimeoutError, QmpLostError) as error:
        _try_again(machine, error)
        return
    machine.attach_qmp(qmp)
    try:
        await _take_over(machine, qmp, folder)
    except QmpLostError as error:
        await machine.drop_link()
        _try_again(machine, error)
    except QmpCommandError as error:
        # Its QEMU is there and has its disks open, so it can't be taken for one that is off.
        machine.set_state(VmState.PAUSED, f"It can't continue ({words(error)}): power it off.")


def _try_again(machine: Machine, error: BaseException) -> None:
    machine.explain(f"Its QEMU is running but does not answer ({words(error)}).")
    machine.later(machine.host.timing.retry_s, Reconnect(machine.session))


async def _take_over(machine: Machine, qmp: Qmp, folder: RunFolder) -> None:
    """Find out the state of a QEMU that was found again, and complete what was begun with it."""
    status = await qmp.query_status()
    if machine.record is not None and machine.record.reading:
        await machine.end_qemu()
        machine.qemu_ended(VmState.STOPPED)
        return
    with contextlib.suppress(QemuError):
        machine.agent.note_channel(await agent_is_open(qmp))
    if not machine.console.attached:
        await _reattach_console(machine, qmp, folder)
    if status is RunState.IN_MIGRATE:
        await machine.end_qemu()
        machine.qemu_ended(VmState.STOPPED, "Its start from a memory image was cut off.")
        return
    if await _take_up(machine, qmp, status):
        status = RunState.RUNNING
    await machine.apply_panic_action(qmp)
    if status is RunState.RUNNING and machine.state is VmState.STOPPING:
        machine.explain(None)
    elif status is RunState.RUNNING:
        machine.set_state(VmState.RUNNING)
    else:
        machine.set_state(VmState.PAUSED)
        await machine.note_pause(qmp, status)


async def _take_up(machine: Machine, qmp: Qmp, status: RunState) -> bool:
    """Complete what the previous vmkernel had begun; True if that made the guest run."""
    record = machine.record
    suspending_from = record.suspending_from if record is not None else None
    if suspending_from is not None:
        await memory_image.cancel(qmp)
        await asyncio.to_thread(saved_memory.sweep, machine.folder)
    wanted = (
        status is RunState.PRELAUNCH
        or suspending_from is VmState.RUNNING
        or (record is not None and record.resuming)
    )
    if wanted and status is not RunState.RUNNING:
        await qmp.cont()
    machine.note_record(suspending_from=None, resuming=False)
    return wanted


async def _reattach_console(machine: Machine, qmp: Qmp, folder: RunFolder) -> None:
    """Connect to the serial line again, with the output since it was last connected."""
    try:
        machine.console.attach(connect_stream(folder.serial), hold=True)
    except OSError:
        return
    earlier = b""
    if machine.record is not None and machine.record.has_ring:
        with contextlib.suppress(QemuError):
            earlier = await qmp.ringbuf_read(RINGBUF, SERIAL_RING_BYTES)
    machine.console.release(earlier)


def _gone(machine: Machine, ended: GuestEnded | None, how: str | None) -> None:
    machine.qemu_ended(*verdict(ended, how, lambda: machine.host.last_lines(machine.vm_id)))
