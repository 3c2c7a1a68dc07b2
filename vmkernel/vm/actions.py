"""What a VM's owner task does for each request; one function each.

A function that returns has answered its request, but for `shut_down`: that one puts the request
among those who wait, and the end of the guest answers it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from vmkernel.model import VmState
from vmkernel.vm import definition as definitions
from vmkernel.vm.machine import Machine, words
from vmkernel.vm.messages import Ask
from vmkernel.vm.starter import start_qemu
from vmkernel.vm.states import VmRequest

__all__ = ["ACTIONS", "WAITS", "carry_out"]

_log = logging.getLogger(__name__)

Action = Callable[[Machine, Ask], Awaitable[Any]]

WAITS = object()
"""The answer of an action whose request is answered later."""


async def start(machine: Machine, _: Ask) -> None:
    """Start QEMU and let the guest run."""
    if machine.host.launcher.is_active(machine.vm_id):
        _log.warning("VM %s: a QEMU that nobody knew of is ended", machine.vm_id)
        await machine.end_qemu()
    machine.to(VmState.STARTING)
    machine.console.clear()
    try:
        started = await start_qemu(machine.host, machine.definition, machine.folder)
        machine.record = started.record
        machine.adopt(started.qmp)
        machine.attach_console()
        await started.qmp.cont()
    except BaseException as error:
        if machine.connected:
            await asyncio.shield(machine.end_qemu())
        machine.off(VmState.STOPPED, f"The last start failed: {words(error)}")
        raise
    machine.to(VmState.RUNNING)


async def shut_down(machine: Machine, ask: Ask) -> object:
    """Press the guest's power button; its end, or the request's time-out, is the answer."""
    await machine.qmp().system_powerdown()
    machine.waiting.append(ask)
    machine.to(VmState.STOPPING)
    return WAITS


async def power_off(machine: Machine, _: Ask) -> None:
    """End QEMU, as by pulling the plug."""
    await machine.end_qemu()
    machine.off(VmState.STOPPED)


async def reset(machine: Machine, _: Ask) -> None:
    """Press the guest's reset button."""
    qmp = machine.qmp()
    await qmp.system_reset()
    if machine.state is VmState.PAUSED:
        await qmp.cont()
    machine.abandon_waiters("it was reset")
    machine.to(VmState.RUNNING)


async def redefine(machine: Machine, ask: Ask) -> None:
    """Take a changed definition; durable on return."""
    assert ask.change is not None
    new = ask.change(machine.definition)
    await asyncio.to_thread(definitions.save, machine.folder, new)
    machine.definition = new


async def delete(machine: Machine, _: Ask) -> None:
    """Delete the VM; the definition goes first: from then on there is no such VM."""
    await asyncio.to_thread(definitions.delete, machine.folder)
    machine.run_folder.remove()


async def work(_: Machine, ask: Ask) -> object:
    """Somebody else's work, inside the owner task."""
    assert ask.work is not None
    return await ask.work()


ACTIONS: dict[VmRequest, Action] = {
    VmRequest.START: start,
    VmRequest.SHUTDOWN: shut_down,
    VmRequest.POWER_OFF: power_off,
    VmRequest.RESET: reset,
    VmRequest.RENAME: redefine,
    VmRequest.RECONFIGURE: redefine,
    VmRequest.ADJUST: redefine,
    VmRequest.DELETE: delete,
}


async def carry_out(machine: Machine, ask: Ask) -> object:
    """Do what is asked."""
    if ask.work is not None:
        return await work(machine, ask)
    return await ACTIONS[ask.request](machine, ask)
