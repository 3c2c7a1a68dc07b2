"""Changes of a VM's state caused by QEMU's events and by timers."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from vmkernel.model import MicaError, OnPanic, VmState
from vmkernel.qemu import (
    AgentChannel,
    DeviceGone,
    DeviceKept,
    DiskError,
    GuestEnded,
    GuestPanicked,
    GuestReset,
    Paused,
    QemuError,
    QemuEvent,
    QmpCommandError,
    ReportsMissed,
    Resumed,
    RunState,
    WatchdogFired,
    hotplug,
)
from vmkernel.qemu.guest_agent import agent_is_open
from vmkernel.vm.driver.actions import carry_out, press_again
from vmkernel.vm.driver.removals import guest_refused, poll_later, settle
from vmkernel.vm.machine.disk_full import full_reason, has_room
from vmkernel.vm.machine.exit_reason import UNFED
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.machine.messages import PendingRequest, Timer, TimerFired
from vmkernel.vm.machine.restart_policy import End
from vmkernel.vm.states import WITH_QEMU, VmRequest, is_legal

__all__ = ["come_due", "datastore_changed", "note", "poll_qemu"]

_log = logging.getLogger(__name__)

_HELD_S = 10.0
"""Between two checks if long work still blocks a start."""


_MISSED = "QEMU sent more events than could be processed; its state was read again."


async def note(machine: Machine, event: QemuEvent) -> None:
    """Handle one event. Raises QemuError if QEMU is gone, or doesn't answer: a later check then
    finds what the event reported.
    """
    try:
        await _note(machine, event)
    except (QemuError, MicaError):
        poll_later(machine)
        raise


async def poll_qemu(machine: Machine) -> None:
    """Ask QEMU for everything that a lost event could have reported: whether the guest runs, which
    devices it has, whether its agent listens. (The guest's end is never lost.)
    """
    if not machine.connected or machine.state not in WITH_QEMU:
        return
    try:
        qmp = machine.qmp()
        status = await qmp.query_status()
        if status is not RunState.RUNNING:
            if machine.state is not VmState.PAUSED or not machine.reason:
                await _paused(machine)
        elif machine.state is VmState.PAUSED:
            machine.set_state(VmState.RUNNING)
        with contextlib.suppress(QmpCommandError):
            machine.agent.note_channel(await agent_is_open(qmp))
        await settle(machine)
        # A guest that refused to let a device go says so again when it is asked again.
        if machine.record is not None and machine.state is not VmState.PAUSED:
            for key in machine.record.unplugging:
                with contextlib.suppress(QmpCommandError):
                    await hotplug.unplug(qmp, key)
    except (QemuError, MicaError):
        poll_later(machine)
        raise


async def _note(machine: Machine, event: QemuEvent) -> None:
    state = machine.state
    match event:
        case GuestEnded():
            machine.note_end(event)
        case GuestReset():
            machine.publish_of_guest("vm.reset", {"by_guest": event.by_guest})
            if state in (VmState.RUNNING, VmState.PAUSED):
                machine.explain(None)
        case Paused() if state in (VmState.RUNNING, VmState.STOPPING):
            if machine.ended is None:
                await _paused(machine)
        case Resumed() if state is VmState.PAUSED:
            machine.set_state(VmState.RUNNING)
        case GuestPanicked():
            panic = f"The guest reported a panic ({event.detail})."
            machine.explain(panic)
            machine.publish_of_guest("vm.guest-panicked", {"detail": event.detail}, panic)
        case WatchdogFired():
            machine.explain(UNFED)
            machine.publish_of_guest("vm.watchdog-fired", {"action": event.action}, UNFED)
            if event.ends:
                machine.note_end(GuestEnded(by_guest=True, cause="watchdog"))
        case DiskError():
            _disk_error(machine, event)
        case AgentChannel():
            machine.agent.note_channel(event.is_open)
        case DeviceGone():
            await settle(machine, [event.device])
        case DeviceKept():
            guest_refused(machine, event.device)
        case ReportsMissed():
            machine.publish_of_guest("vm.reports-missed", {}, _MISSED)
            await poll_qemu(machine)
        case _:
            pass


async def _paused(machine: Machine) -> None:
    """The guest is paused, without a request."""
    qmp = machine.qmp()
    status = await qmp.query_status()
    if status in (RunState.RUNNING, RunState.SHUTDOWN):
        return  # it goes on already, or ends: both are reported
    machine.abandon_waiters("it was paused")
    machine.set_state(VmState.PAUSED, machine.reason)
    await machine.note_pause(qmp, status)
    if status is RunState.GUEST_PANICKED and machine.definition.spec.on_panic is OnPanic.RESET:
        loop = asyncio.get_running_loop()
        await carry_out(machine, PendingRequest(VmRequest.RESET, loop.create_future()))


def _disk_error(machine: Machine, event: DiskError) -> None:
    what = full_reason(machine, event.device) if event.no_space else f"{event.detail}."
    was_full = machine.disk_full
    machine.disk_failed(what, full=event.no_space)
    why = machine.reason or ""
    if event.no_space and not was_full:
        machine.publish_of_guest("vm.disk-full", {"device": event.device}, why)
    elif not event.no_space:
        machine.publish_of_guest(
            "vm.disk-error",
            {"device": event.device, "no_space": False, "detail": event.detail},
            why,
        )


def datastore_changed(machine: Machine, datastore: str, *, available: bool) -> None:
    """A datastore that a VM with a QEMU needs went away, or is there again."""
    lost = f"Its datastore {datastore} is not there any more."
    if not available:
        machine.explain(lost)
        machine.publish("vm.datastore-lost", {"datastore": datastore}, lost)
    elif machine.reason == lost:
        machine.explain(None)


async def come_due(machine: Machine, due: TimerFired) -> None:
    """A timer has fired; it may be out of date."""
    match due.timer:
        case Timer.RESTART if due.number == machine.restarts.number and machine.restarts.pending:
            await _restart(machine)
        case Timer.SPACE if due.number == machine.enospc.number:
            await _poll_space(machine)
        case Timer.POWER_BUTTON:
            await press_again(machine, due.number)
        case Timer.POLL if due.number == machine.session:
            machine.leaving.begin_poll()
            await poll_qemu(machine)
        case _:
            pass


async def _restart(machine: Machine) -> None:
    """Start a VM again, as its policy wants; what fails counts as another end."""
    if machine.host.ending.is_set() or not is_legal(VmRequest.START, machine.state):
        machine.restarts.cancel()
        return
    try:
        machine.locks.check(VmRequest.START)
    except MicaError:
        machine.later(_HELD_S, TimerFired(Timer.RESTART, machine.restarts.number))
        return
    machine.restarts.begin()
    attempt = machine.restarts.attempts
    machine.publish("vm.restarting", {"attempt": attempt}, machine.reason or "")
    loop = asyncio.get_running_loop()
    try:
        await carry_out(machine, PendingRequest(VmRequest.START, loop.create_future()))
    except (MicaError, QemuError, OSError) as error:
        _log.warning("VM %s can't be started again: %s", machine.vm_id, error)
        machine.plan_restart(End.FAILED)


async def _poll_space(machine: Machine) -> None:
    """Continue a VM that was paused because its datastore was full."""
    if machine.state is not VmState.PAUSED or not machine.disk_full:
        return
    storage = machine.host.storage
    try:
        files = [storage.volume(disk.volume).path for disk in machine.definition.spec.disks]
        room = await asyncio.to_thread(has_room, files)
    except (MicaError, OSError):
        room = False
    if not room:
        machine.later(machine.enospc.wait_s, TimerFired(Timer.SPACE, machine.enospc.number))
        return
    machine.enospc.try_again(asyncio.get_running_loop().time())
    await machine.qmp().cont()
    machine.set_state(VmState.RUNNING)
    machine.publish("vm.disk-space", {}, "Its datastore has space again; the VM continues.")
