"""Letting virtual machines stand still and go on, and what starts and ends them of itself."""

from __future__ import annotations

import time
from typing import Any

import click

from remote_api.client.cli.common import (
    Session,
    confirm,
    one_step,
    pass_session,
    say,
    show_object,
    wait_option,
)
from remote_api.client.cli.parameters import NAME
from remote_api.client.errors import TimedOutError
from remote_api.client.sdk import Mica
from vmkernel.model import (
    OnPanic,
    RestartPolicy,
    RestartStatus,
    SecureBootStatus,
    StopAction,
    Vm,
    VmState,
    WaitFor,
)

__all__ = ["LIFE_COMMANDS", "life_lines"]

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


@click.command("set-autostart")
@click.argument("vm_id", type=NAME)
@click.option("--enable/--disable", "enabled", default=None, help="Start with the host, or not.")
@click.option("--order", type=click.IntRange(0, 9999), help="Lower ones first.")
@click.option(
    "--delay",
    "delay_s",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="How long the next ones wait after this one's start.",
)
@click.option(
    "--wait-for",
    type=click.Choice([w.value for w in WaitFor]),
    help="What ends that wait early: the guest agent's first answer, or nothing.",
)
@pass_session
def set_autostart(session: Session, /, vm_id: str, **given: Any) -> None:
    """Say whether and when a virtual machine starts with its host."""
    _set(session, vm_id, "autostart", given)


@click.command("set-stop")
@click.argument("vm_id", type=NAME)
@click.option("--order", type=click.IntRange(0, 9999), help="Higher ones first.")
@click.option(
    "--as-started", is_flag=True, help="In the reverse of the order of the start (the default)."
)
@click.option(
    "--within",
    "timeout_s",
    type=click.FloatRange(1, 3600),
    metavar="SECONDS",
    help="After that it is powered off.",
)
@click.option("--action", type=click.Choice([a.value for a in StopAction]))
@pass_session
def set_stop(session: Session, /, vm_id: str, as_started: bool, **given: Any) -> None:
    """Say how and when a virtual machine ends with its host."""
    if as_started and given["order"] is not None:
        raise click.UsageError("--order and --as-started exclude each other")
    _set(session, vm_id, "stop", given, {"order": None} if as_started else {})


@click.command("set-restart")
@click.argument("vm_id", type=NAME)
@click.argument("policy", required=False, type=click.Choice([p.value for p in RestartPolicy]))
@click.option(
    "--max-attempts", type=click.IntRange(0, 1000), help="How often in a row; 0: for ever."
)
@click.option(
    "--on-panic",
    type=click.Choice([p.value for p in OnPanic]),
    help="What follows when the guest reports a panic.",
)
@pass_session
def set_restart(
    session: Session,
    vm_id: str,
    policy: str | None,
    max_attempts: int | None,
    on_panic: str | None,
) -> None:
    """Say whether a virtual machine that ended of itself is started again."""
    more = {} if on_panic is None else {"on_panic": on_panic}
    _set(session, vm_id, "restart", {"policy": policy, "max_attempts": max_attempts}, beside=more)


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


LIFE_COMMANDS = (
    *_STEPS,
    discard_state,
    set_autostart,
    set_stop,
    set_restart,
    wait,
)


def life_lines(vm: Vm) -> tuple[tuple[str, str], ...]:
    """What `mica vm show` says of these things."""
    spec, status = vm.spec, vm.status
    lines = []
    if status.memory_image is not None:
        image = status.memory_image
        lines.append(("memory image", f"{image.size_bytes >> 20} MiB of {image.taken_at}"))
    if status.secure_boot is not None:
        lines.append(("secure boot", _secure_boot(status.secure_boot)))
    if spec.autostart.enabled:
        text = f"order {spec.autostart.order}"
        if spec.autostart.delay_s:
            text += f", the next {spec.autostart.delay_s:g} s later"
        if spec.autostart.wait_for is not WaitFor.NONE:
            text += f" or once its {spec.autostart.wait_for} answers"
        lines.append(("autostart", text))
    lines.append(("ends by", f"{spec.stop.action} within {spec.stop.timeout_s:g} s"))
    lines.append(("restart", spec.restart.policy.value + _attempts(status.restart)))
    return tuple(lines)


def _secure_boot(status: SecureBootStatus) -> str:
    if status.error is not None:
        return f"keys unknown: {status.error}"
    text = "all certificates"
    if status.missing:
        text = f"lacks {', '.join(status.missing)} (mica vm update-secure-boot)"
    return f"{text}; {status.revoked or 0} revoked"


def _attempts(status: RestartStatus | None) -> str:
    if status is None:
        return ""
    due = f", the next at {status.next_at}" if status.next_at else ""
    return f" ({status.attempts} in a row{due})"


def _set(
    session: Session,
    vm_id: str,
    part: str,
    given: dict[str, Any],
    exact: dict[str, Any] | None = None,
    beside: dict[str, Any] | None = None,
) -> None:
    change = {name: value for name, value in given.items() if value is not None} | (exact or {})
    patch = ({part: change} if change else {}) | (beside or {})
    if not patch:
        raise click.UsageError("say what to change; see --help")
    with session.mica() as mica:
        vm = mica.patch_vm(vm_id, patch)
    if session.json:
        show_object(session, vm)
    for name, text in life_lines(vm):
        say(session, f"{name}: {text}")
