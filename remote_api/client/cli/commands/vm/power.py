"""Starting and stopping virtual machines, and waiting for a state."""

from __future__ import annotations

import time

import click

from remote_api.client.cli.parameters import choice_of
from remote_api.client.cli.session import (
    Session,
    confirm,
    pass_session,
    say,
    show_object,
    wait_option,
)
from remote_api.client.cli.verbs import step_command, vm_argument, yes_option
from remote_api.client.errors import TimedOutError
from remote_api.client.sdk import Mica
from remote_api.client.sdk.base import POLL_S
from vmkernel.model import (
    VmState,
)

__all__ = ["COMMANDS"]


_STEPS = (
    step_command(
        "pause",
        "vm",
        Mica.pause_vm,
        done="VM {id} paused",
        text="Pause a running VM. It stays in memory.",
    ),
    step_command(
        "resume",
        "vm",
        Mica.resume_vm,
        done="VM {id} resumed",
        text="Resume a paused or suspended VM.",
    ),
    step_command(
        "suspend",
        "vm",
        Mica.suspend_vm,
        done="VM {id} is suspended",
        text="Suspend a VM to disk: its memory is saved and freed. Continue with `resume` or"
        " `start`, also after a restart of the host.",
    ),
    step_command(
        "start",
        "vm",
        Mica.start_vm,
        done="VM {id} started",
        text="Start a VM.",
    ),
    step_command(
        "reset",
        "vm",
        Mica.reset_vm,
        done="VM {id} reset",
        text="Reset a running VM, as by its reset button.",
    ),
    step_command(
        "update-secure-boot",
        "vm",
        Mica.update_vm_secure_boot,
        done="Secure Boot certificates of VM {id} are up to date",
        text="Add missing Secure Boot certificates to a stopped VM.",
    ),
)


@click.command("discard-state")
@vm_argument
@yes_option
@wait_option
@pass_session
def discard_state(session: Session, vm_id: str, yes: bool, wait: bool) -> None:
    """Discard the saved memory of a suspended VM.

    Its next start is a cold boot.
    """
    if not yes:
        confirm(f"Discard the saved memory of VM {vm_id}?")
    with session.mica() as mica:
        operation = mica.discard_vm_state(vm_id)
        session.finish(mica, operation, wait=wait, done=f"VM {vm_id} stopped")


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


@click.command("stop")
@vm_argument
@click.option("--force", is_flag=True, help="Power off at once, without asking the guest.")
@click.option(
    "--within",
    "timeout_s",
    type=click.FloatRange(1, 3600),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that the guest has to shut down.",
)
@wait_option
@pass_session
def stop_vm(session: Session, vm_id: str, force: bool, timeout_s: float, wait: bool) -> None:
    """Shut down a VM, or power it off with --force.

    A guest that is still booting ignores the power button, so the request is repeated every 10
    seconds until the guest shuts down or the time is up.
    """
    with session.mica() as mica:
        if force:
            operation = mica.power_off_vm(vm_id)
        else:
            operation = mica.shut_down_vm(vm_id, timeout_s=timeout_s)
        session.finish(mica, operation, wait=wait, done=f"VM {vm_id} stopped")


COMMANDS = (*_STEPS, stop_vm, discard_state, wait)
