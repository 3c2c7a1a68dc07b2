"""Starting and stopping virtual machines, and waiting for a state."""

from __future__ import annotations

import time

import click

from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import (
    Session,
    confirm,
    one_step,
    pass_session,
    say,
    show_object,
    wait_option,
)
from remote_api.client.errors import TimedOutError
from remote_api.client.sdk import Mica
from vmkernel.model import (
    VmState,
)

__all__ = ["COMMANDS"]

_POLL_S = 1.0


_STEPS = (
    one_step(
        "pause",
        "vm",
        Mica.pause_vm,
        done="VM {id} is paused",
        text="Let a virtual machine stand still, in memory.",
    ),
    one_step(
        "resume",
        "vm",
        Mica.resume_vm,
        done="VM {id} goes on",
        text="Let a paused or suspended virtual machine go on.",
    ),
    one_step(
        "suspend",
        "vm",
        Mica.suspend_vm,
        done="VM {id} is suspended",
        text="Write a virtual machine's memory to disk and end it; `resume` or `start` takes it up"
        " again, after the host was off as well.",
    ),
    one_step(
        "start",
        "vm",
        Mica.start_vm,
        done="VM {id} is started",
        text="Start a virtual machine.",
    ),
    one_step(
        "reset",
        "vm",
        Mica.reset_vm,
        done="VM {id} is reset",
        text="Reset a running virtual machine.",
    ),
    one_step(
        "update-secure-boot",
        "vm",
        Mica.update_vm_secure_boot,
        done="VM {id} has all Secure Boot certificates",
        text="Add the Secure Boot certificates that a stopped virtual machine lacks.",
    ),
)


@click.command("discard-state")
@click.argument("vm_id", type=NAME)
@click.option("--yes", is_flag=True, help="Don't ask.")
@wait_option
@pass_session
def discard_state(session: Session, vm_id: str, yes: bool, wait: bool) -> None:
    """Throw the memory of a suspended virtual machine away: it then starts as after a power cut."""
    if not yes:
        confirm(f"throw away what VM {vm_id} had in memory?")
    with session.mica() as mica:
        operation = mica.discard_vm_state(vm_id)
        session.finish(mica, operation, wait=wait, done=f"VM {vm_id} is stopped")


@click.command("wait")
@click.argument("vm_id", type=NAME)
@click.argument(
    "state",
    metavar="[STATE]",
    type=click.Choice([s.value for s in VmState]),
    default=VmState.RUNNING.value,
)
@click.option("--agent", is_flag=True, help="Until the guest's agent answers, too.")
@click.option(
    "--within",
    "timeout_s",
    type=click.FloatRange(1, 86400),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
)
@pass_session
def wait(session: Session, vm_id: str, state: str, agent: bool, timeout_s: float) -> None:
    """Wait until a virtual machine is in STATE (running where none is given)."""
    end = time.monotonic() + timeout_s
    with session.mica() as mica:
        while True:
            vm = mica.vm(vm_id)
            answers = vm.status.agent is not None and vm.status.agent.connected
            if vm.status.state == state and (answers or not agent):
                break
            if time.monotonic() >= end:
                silent = ", its agent does not answer" if agent and not answers else ""
                raise TimedOutError(
                    f"VM {vm_id} is still {vm.status.state} after {timeout_s:g} s{silent}"
                )
            time.sleep(_POLL_S)
    if session.json:
        show_object(session, vm)
    say(session, f"VM {vm_id} is {vm.status.state}")


@click.command("stop")
@click.argument("vm_id", type=NAME)
@click.option("--force", is_flag=True, help="At once, as by pulling its plug.")
@click.option(
    "--within",
    "timeout_s",
    type=click.FloatRange(1, 3600),
    default=120.0,
    show_default=True,
    help="Seconds that the guest has to shut down.",
)
@wait_option
@pass_session
def stop_vm(session: Session, vm_id: str, force: bool, timeout_s: float, wait: bool) -> None:
    """Ask the guest to shut down, or stop it by --force.

    A guest that is still booting does not notice its power button: it is pressed again every 10
    seconds until the guest ends or the time is over.
    """
    with session.mica() as mica:
        if force:
            operation = mica.power_off_vm(vm_id)
        else:
            operation = mica.shut_down_vm(vm_id, timeout_s=timeout_s)
        session.finish(mica, operation, wait=wait, done=f"VM {vm_id} is stopped")


COMMANDS = (*_STEPS, stop_vm, discard_state, wait)
