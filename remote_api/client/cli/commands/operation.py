"""The `mica operation` commands."""

from __future__ import annotations

import click

from remote_api.client.cli.list_options import given_query, list_options
from remote_api.client.cli.output import Columns, listed
from remote_api.client.cli.session import Session, pass_session
from remote_api.client.cli.verbs import list_command, show_command
from vmkernel.model import (
    OPERATION_LISTING,
    Operation,
)

__all__ = ["COMMANDS"]


_operation = click.argument("operation_id", metavar="OPERATION")


@click.group("operation")
def operation_group() -> None:
    """Manage operations (long-running work)."""


@operation_group.command("wait")
@_operation
@pass_session
def wait_operation(session: Session, operation_id: str) -> None:
    """Wait for an operation to finish.

    The exit status is 0 if it succeeded, and 1 if it failed.
    """
    with session.mica() as mica:
        operation = mica.operation(operation_id)
        session.finish(mica, operation, wait=True, done=f"operation {operation_id} succeeded")


@operation_group.command("cancel")
@_operation
@pass_session
def cancel_operation(session: Session, operation_id: str) -> None:
    """Cancel an operation."""
    with session.mica() as mica:
        operation = mica.cancel(operation_id)
        session.finish(mica, operation, wait=False, done=f"operation {operation_id} succeeded")


def _far(operation: Operation) -> str | None:
    progress = operation.progress
    return f"{100 * progress.done // progress.total} %" if progress.total else None


def _left(operation: Operation) -> str | None:
    progress = operation.progress
    if operation.state.finished or progress.remaining_s is None:
        return None
    rate = f", {progress.rate_per_s} {progress.unit}/s" if progress.rate_per_s else ""
    return f"{progress.remaining_s} s{rate}"


_LINES: Columns = (
    ("id", lambda o: o.id),
    ("kind", lambda o: o.kind),
    ("subject", lambda o: f"{o.subject.kind} {o.subject.id}"),
    ("state", lambda o: o.state),
    ("nothing to do", lambda o: o.unchanged or None),
    ("stage", lambda o: o.progress.stage),
    ("done", _far),
    ("remaining", _left),
    ("part of", lambda o: o.parent),
    ("by", lambda o: o.actor),
    ("since", lambda o: o.created_at),
    ("until", lambda o: o.finished_at),
    ("can be cancelled", lambda o: o.cancellable),
    ("error", lambda o: o.error and o.error.detail),
    ("error type", lambda o: o.error and o.error.code),
    ("fields", lambda o: o.error and [f"{e.pointer}: {e.detail}" for e in o.error.errors]),
)
operation_group.add_command(
    list_command(
        lambda mica, **given: mica.operations(**given_query(given)),
        listed(_LINES, "id", "kind", "subject", "state", "done", "by", "since", "error"),
        text="List running and recent operations.",
        parameters=list_options(OPERATION_LISTING),
        lines=_LINES,
    )
)
operation_group.add_command(
    show_command(
        lambda mica, operation_id: mica.operation(operation_id),
        _LINES,
        text="Show an operation, its progress and its error.",
        parameters=(_operation,),
    )
)

COMMANDS = (operation_group,)
