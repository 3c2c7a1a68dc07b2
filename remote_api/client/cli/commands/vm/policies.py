"""What starts and stops virtual machines without a user."""

from __future__ import annotations

from typing import Any

import click

from remote_api.client.cli.commands.vm.view import life_lines
from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import (
    Session,
    pass_session,
    say,
    show_object,
)
from vmkernel.model import (
    OnPanic,
    RestartPolicy,
    StopAction,
    WaitFor,
)

__all__ = ["COMMANDS"]


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


COMMANDS = (set_autostart, set_stop, set_restart)
