"""When a VM starts, stops and restarts without a user's request."""

from __future__ import annotations

from typing import Any

import click

from remote_api.client.cli.commands.vm.view import life_lines
from remote_api.client.cli.parameters import choice_of
from remote_api.client.cli.session import (
    Session,
    pass_session,
    say,
    show_object,
)
from remote_api.client.cli.verbs import vm_argument
from vmkernel.model import (
    OnPanic,
    RestartPolicy,
    StopAction,
    WaitFor,
)

__all__ = ["COMMANDS"]


@click.command("set-autostart")
@vm_argument
@click.option(
    "--enable/--disable", "enabled", default=None, help="Whether the VM starts with the host."
)
@click.option(
    "--order",
    type=click.IntRange(0, 9999),
    metavar="N",
    help="Start order: VMs with lower numbers start first.",
)
@click.option(
    "--delay",
    "delay_s",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="Time to wait before the next VM starts.",
)
@click.option(
    "--wait-for",
    type=choice_of(WaitFor),
    help="Start the next VM earlier, when this VM's guest agent answers.",
)
@pass_session
def set_autostart(session: Session, /, vm_id: str, **given: Any) -> None:
    """Configure whether and when a VM starts with the host."""
    _set(session, vm_id, "autostart", given)


@click.command("set-stop")
@vm_argument
@click.option(
    "--order",
    type=click.IntRange(0, 9999),
    metavar="N",
    help="Stop order: VMs with higher numbers stop first.",
)
@click.option(
    "--as-started", is_flag=True, help="Stop in the reverse of the start order (the default)."
)
@click.option(
    "--within",
    "timeout_s",
    type=click.FloatRange(1, 3600),
    metavar="SECONDS",
    help="Power the VM off after this time.",
)
@click.option(
    "--action",
    type=choice_of(StopAction),
    help="How the VM is stopped.",
)
@pass_session
def set_stop(session: Session, /, vm_id: str, as_started: bool, **given: Any) -> None:
    """Configure how a VM stops when the host shuts down."""
    if as_started and given["order"] is not None:
        raise click.UsageError("--order and --as-started are mutually exclusive")
    _set(session, vm_id, "stop", given, {"order": None} if as_started else {})


@click.command("set-restart")
@vm_argument
@click.argument("policy", required=False, type=choice_of(RestartPolicy))
@click.option(
    "--max-attempts",
    type=click.IntRange(0, 1000),
    metavar="N",
    help="Restarts in a row before giving up; 0 for no limit.",
)
@click.option(
    "--on-panic",
    type=choice_of(OnPanic),
    help="What to do when the guest reports a panic.",
)
@pass_session
def set_restart(
    session: Session,
    vm_id: str,
    policy: str | None,
    max_attempts: int | None,
    on_panic: str | None,
) -> None:
    """Configure whether a VM restarts after a crash."""
    more = {} if on_panic is None else {"on_panic": on_panic}
    _set(session, vm_id, "restart", {"policy": policy, "max_attempts": max_attempts}, beside=more)


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
        raise click.UsageError("nothing to change; see --help")
    with session.mica() as mica:
        vm = mica.patch_vm(vm_id, patch)
    if session.json:
        show_object(session, vm)
    for name, text in life_lines(vm):
        say(session, f"{name}: {text}")


COMMANDS = (set_autostart, set_stop, set_restart)
