"""Starting and stopping virtual machines, and waiting for a state."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from remote_api.client.cli.parameters import choice_of
from remote_api.client.cli.session import (
    Session,
    pass_session,
    say,
    show_object,
)
from remote_api.client.cli.verbs import vm_argument, vm_step_command
from remote_api.client.errors import TimedOutError
from remote_api.client.sdk import Mica
from remote_api.client.sdk.base import POLL_S
from vmkernel.model import (
    Operation,
    Vm,
    VmState,
)

__all__ = ["COMMANDS"]


_OFF = {VmState.STOPPED, VmState.CRASHED}
_GOES = {VmState.RUNNING, VmState.STARTING}


def _in(*states: VmState) -> Callable[[Vm], bool]:
    return lambda vm: vm.status.state in states


_STEPS = (
    vm_step_command(
        "pause",
        Mica.pause_vm,
        done="VM {id} paused",
        text="Pause running VMs. They stay in memory.",
        concerns=_in(*_GOES),
    ),
    vm_step_command(
        "resume",
        Mica.resume_vm,
        done="VM {id} resumed",
        text="Resume paused or suspended VMs.",
        concerns=_in(VmState.PAUSED, VmState.SUSPENDED),
    ),
    vm_step_command(
        "suspend",
        Mica.suspend_vm,
        done="VM {id} is suspended",
        text="Suspend VMs to disk: their memory is saved and freed. Continue with `resume` or"
        " `start`, also after a restart of the host.",
        concerns=_in(*_GOES, VmState.PAUSED),
    ),
    vm_step_command(
        "start",
        Mica.start_vm,
        done="VM {id} started",
        text="Start VMs.",
        concerns=_in(*_OFF, VmState.SUSPENDED),
    ),
    vm_step_command(
        "reset",
        Mica.reset_vm,
        done="VM {id} reset",
        text="Reset running VMs, as by their reset button.",
        concerns=_in(*_GOES, VmState.PAUSED),
    ),
    vm_step_command(
        "update-secure-boot",
        Mica.update_vm_secure_boot,
        done="Secure Boot certificates of VM {id} are up to date",
        text="Add missing Secure Boot certificates to stopped VMs.",
        concerns=lambda vm: vm.status.state in _OFF and vm.status.secure_boot is not None,
    ),
    vm_step_command(
        "discard-state",
        Mica.discard_vm_state,
        done="VM {id} stopped",
        text="Discard the saved memory of suspended VMs.\n\nTheir next start is a cold boot.",
        concerns=_in(VmState.SUSPENDED),
        ask="Discard the saved memory of VM {names}?",
    ),
)


@click.command("wait")
@vm_argument
@click.argument(
    "state",
    metavar="[STATE]",
    type=choice_of(VmState),
    default=VmState.RUNNING.value,
)
@click.option("--agent", is_flag=True, help="Also wait for the guest agent to answer.")
@click.option(
    "--within",
    "timeout_s",
    type=click.FloatRange(1, 86400),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up after this time.",
)
@pass_session
def wait(session: Session, vm_id: str, state: str, agent: bool, timeout_s: float) -> None:
    """Wait until a VM is in STATE (default: running)."""
    end = time.monotonic() + timeout_s
    with session.mica() as mica:
        while True:
            vm = mica.vm(vm_id)
            answers = vm.status.agent is not None and vm.status.agent.connected
            if vm.status.state == state and (answers or not agent):
                break
            if time.monotonic() >= end:
                silent = ", and its guest agent does not answer" if agent and not answers else ""
                raise TimedOutError(
                    f"timed out: VM {vm_id} is still {vm.status.state} after"
                    f" {timeout_s:g} s{silent}"
                )
            time.sleep(POLL_S)
    if session.json:
        show_object(session, vm)
    say(session, f"VM {vm_id} is {vm.status.state}")


def _stop(mica: Mica, vm_id: str, *, force: bool, timeout_s: float) -> Operation:
    return mica.power_off_vm(vm_id) if force else mica.shut_down_vm(vm_id, timeout_s=timeout_s)


_STOP = vm_step_command(
    "stop",
    _stop,
    done="VM {id} stopped",
    text="Shut down VMs, or power them off with --force.\n\nA guest that is still booting ignores"
    " the power button, so the request is repeated every 10 seconds until the guest shuts down or"
    " the time is up.",
    concerns=_in(*_GOES, VmState.PAUSED, VmState.STOPPING),
    parameters=(
        click.option("--force", is_flag=True, help="Power off at once, without asking the guest."),
        click.option(
            "--within",
            "timeout_s",
            type=click.FloatRange(1, 3600),
            default=120.0,
            show_default=True,
            metavar="SECONDS",
            help="Time that the guest has to shut down.",
        ),
    ),
)

COMMANDS = (*_STEPS, _STOP, wait)
