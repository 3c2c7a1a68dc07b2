"""What a VM's state becomes by what QEMU reports."""

from __future__ import annotations

from vmkernel.model import VmState
from vmkernel.qemu import (
    AgentChannel,
    DiskError,
    GuestEnded,
    GuestPanicked,
    GuestReset,
    Paused,
    QemuEvent,
    Resumed,
)
from vmkernel.vm.machine import Machine

__all__ = ["note"]


def note(machine: Machine, event: QemuEvent) -> None:
    """Take up one report."""
    state = machine.state
    match event:
        case GuestEnded():
            machine.note_end(event)
        case GuestReset():
            machine.publish("vm.reset", {"by_guest": event.by_guest})
            if state in (VmState.RUNNING, VmState.PAUSED):
                machine.reason = None
        case Paused() if state in (VmState.RUNNING, VmState.STOPPING):
            if machine.ended is None:
                machine.abandon_waiters("it was paused")
                machine.to(VmState.PAUSED, machine.reason)
        case Resumed() if state is VmState.PAUSED:
            machine.to(VmState.RUNNING)
        case GuestPanicked():
            machine.reason = f"The guest reported a panic ({event.detail})."
            machine.publish("vm.guest-panicked", {"detail": event.detail})
        case DiskError():
            what = "no space is left on its datastore" if event.no_space else event.detail
            machine.reason = f"A disk request failed: {what}."
            machine.publish("vm.disk-error", {"device": event.device, "no_space": event.no_space})
        case AgentChannel():
            machine.agent.note_channel(event.is_open)
        case _:
            pass
