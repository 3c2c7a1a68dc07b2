"""What a VM's owner task does for each request; one function each (suspending: suspend.py).

A function that returns has answered its request, except for `shut_down`: it adds the request to the
waiters, and the guest's end answers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from vmkernel.model import ErrorCode, MicaError, VmState
from vmkernel.qemu import RunState
from vmkernel.qemu.guest_agent import AgentError
from vmkernel.vm.driver.firmware_keys import update_secure_boot
from vmkernel.vm.driver.suspend import discard_state, kill_stray_qemu, resume_from_disk, suspend
from vmkernel.vm.machine.machine import Machine, words
from vmkernel.vm.machine.messages import PendingRequest, Timer, TimerFired
from vmkernel.vm.nonvolatile import tpm_state
from vmkernel.vm.start.start import start_qemu
from vmkernel.vm.states import OFF, VmRequest
from vmkernel.vm.store import definition as definitions

__all__ = ["ACTIONS", "WAITS", "carry_out", "press_again"]

Action = Callable[[Machine, PendingRequest], Awaitable[Any]]

WAITS = object()
"""The answer of an action whose request is answered later."""

_log = logging.getLogger(__name__)

_RESET_S = 10.0
_AGENT_S = 10.0
"""An agent that is busy, or asleep with its guest, gets no more time than this."""


async def start(machine: Machine, ask: PendingRequest) -> None:
    """Start QEMU and let the guest run, from its saved memory if there is any."""
    if await asyncio.to_thread(definitions.reverting, machine.folder):
        from vmkernel.vm.snapshots.recover import recover_snapshots

        await recover_snapshots(machine)
    if machine.suspension is not None:
        await resume_from_disk(machine, ask)
        return
    await kill_stray_qemu(machine)
    machine.set_state(VmState.STARTING)
    machine.console.clear()
    try:
        started = await start_qemu(machine.host, machine.definition, machine.folder)
        machine.qemu_started(started.record, started.qmp)
        await machine.apply_panic_action(started.qmp, fresh=True)
        await started.qmp.cont()
    except BaseException as error:
        if machine.connected:
            await asyncio.shield(machine.end_qemu())
        machine.qemu_ended(VmState.STOPPED, f"The last start failed: {words(error)}", end=None)
        raise
    machine.set_state(VmState.RUNNING)


async def shut_down(machine: Machine, ask: PendingRequest) -> object:
    """Ask the guest's agent to shut down, or press the guest's power button, which is pressed again
    until the guest ends; its end, or the request's time-out, is the answer."""
    if not await _shut_down_by_agent(machine):
        await machine.qmp().system_powerdown()
    machine.begin_shutdown(ask)
    _press_later(machine)
    return WAITS


async def press_again(machine: Machine, shutdown: int) -> None:
    """Press the power button of a guest that has not ended yet: it may have been booting at the
    last press, or have forgotten its promise to the agent."""
    if shutdown != machine.shutdowns or machine.state is not VmState.STOPPING or machine.ended:
        return
    _press_later(machine)
    if machine.connected:
        await machine.qmp().system_powerdown()


def _press_later(machine: Machine) -> None:
    machine.later(
        machine.host.timing.press_again_s, TimerFired(Timer.POWER_BUTTON, machine.shutdowns)
    )


async def _shut_down_by_agent(machine: Machine) -> bool:
    """True if the guest's agent has accepted."""
    if not machine.agent.connected:
        return False
    try:
        async with asyncio.timeout(_AGENT_S):
            await machine.agent.shut_down()
    except (AgentError, TimeoutError) as error:
        _log.info("VM %s: the power button instead of its agent: %s", machine.vm_id, words(error))
        return False
    return True


async def power_off(machine: Machine, _: PendingRequest) -> None:
    """End QEMU, as by pulling the plug; or end the waiting for the restart policy's start."""
    if machine.state in OFF:
        return
    machine.note_record(end_asked=True)
    await machine.end_qemu()
    if machine.definition.spec.tpm:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(tpm_state.make_durable, machine.folder)
    machine.qemu_ended(VmState.STOPPED)


async def reset(machine: Machine, _: PendingRequest) -> None:
    """Press the guest's reset button."""
    qmp = machine.qmp()
    with qmp.watch("RESET") as resets:
        await qmp.system_reset()
        if machine.state is VmState.PAUSED:
            # What stood still for good may run only once it has been reset.
            with contextlib.suppress(TimeoutError):
                await resets.next(timeout_s=_RESET_S)
            await qmp.cont()
    machine.abandon_waiters("it was reset")
    machine.note_record(end_asked=False)
    machine.enospc.end()
    machine.set_state(VmState.RUNNING)


async def pause(machine: Machine, _: PendingRequest) -> None:
    """Pause the guest."""
    await machine.qmp().stop()
    machine.set_state(VmState.PAUSED)


async def resume(machine: Machine, ask: PendingRequest) -> None:
    """Resume the guest, from its saved memory if there is any."""
    if machine.suspension is not None:
        await resume_from_disk(machine, ask)
        return
    qmp = machine.qmp()
    status = await qmp.query_status()
    if status in (RunState.INTERNAL_ERROR, RunState.GUEST_PANICKED, RunState.SHUTDOWN):
        raise MicaError(
            ErrorCode.CONFLICT,
            f"VM {machine.vm_id} can't continue from its present state ({status}): reset it, or"
            " power it off.",
        )
    await qmp.cont()
    machine.set_state(VmState.RUNNING)


async def redefine(machine: Machine, ask: PendingRequest) -> None:
    """Take a changed definition; durable on return."""
    assert ask.change is not None
    await machine.define(ask.change(machine.definition))
    if machine.connected:
        await machine.apply_panic_action(machine.qmp())


async def delete(machine: Machine, _: PendingRequest) -> None:
    """Delete the VM; the definition goes first: from then on there is no such VM."""
    await asyncio.to_thread(definitions.delete, machine.folder)
    machine.run_folder.remove()


async def work(_: Machine, ask: PendingRequest) -> object:
    """The caller's work, inside the owner task."""
    assert ask.work is not None
    return await ask.work()


ACTIONS: dict[VmRequest, Action] = {
    VmRequest.START: start,
    VmRequest.SHUTDOWN: shut_down,
    VmRequest.POWER_OFF: power_off,
    VmRequest.RESET: reset,
    VmRequest.PAUSE: pause,
    VmRequest.RESUME: resume,
    VmRequest.SUSPEND: suspend,
    VmRequest.DISCARD_STATE: discard_state,
    VmRequest.UPDATE_SECURE_BOOT: update_secure_boot,
    VmRequest.RENAME: redefine,
    VmRequest.RECONFIGURE: redefine,
    VmRequest.ADJUST: redefine,
    VmRequest.DELETE: delete,
}


async def carry_out(machine: Machine, ask: PendingRequest) -> object:
    """Do what the request asks."""
    if ask.work is not None:
        return await work(machine, ask)
    return await ACTIONS[ask.request](machine, ask)
