"""The `mica operation` commands."""

from __future__ import annotations

import click

from remote_api.client.cli.session import Session, pass_session, show_object, show_rows
from remote_api.schema import Problem
from vmkernel.model import PROBLEM_TYPE_PREFIX, Operation

__all__ = ["COMMANDS"]


@click.group("operation")
def operation_group() -> None:
    """Work that outlasts its request."""


@operation_group.command("list")
@pass_session
def list_operations(session: Session) -> None:
    """List running and recent operations."""
    with session.mica() as mica:
        show_rows(
            session,
            mica.operations(),
            (
                ("ID", lambda o: o.id),
                ("KIND", lambda o: o.kind),
                ("SUBJECT", lambda o: f"{o.subject.kind} {o.subject.id}"),
                ("STATE", lambda o: o.state),
                (
                    "DONE",
                    _far,
                ),
                ("BY", lambda o: o.actor),
                ("SINCE", lambda o: o.created_at),
                ("ERROR", lambda o: o.error and o.error.detail),
            ),
        )


@operation_group.command("show")
@click.argument("operation_id")
@pass_session
def show_operation(session: Session, operation_id: str) -> None:
    """Show an operation, and why it failed."""
    with session.mica() as mica:
        show_object(
            session,
            mica.operation(operation_id),
            (
                ("id", lambda o: o.id),
                ("kind", lambda o: o.kind),
                ("subject", lambda o: f"{o.subject.kind} {o.subject.id}"),
                ("state", lambda o: o.state),
                ("stage", lambda o: o.progress.stage),
                ("done", _far),
                ("by", lambda o: o.actor),
                ("since", lambda o: o.created_at),
                ("until", lambda o: o.finished_at),
                ("can be cancelled", lambda o: o.cancellable),
                ("error", lambda o: o.error and o.error.detail),
                ("kind of error", lambda o: o.error and _code(o.error)),
                (
                    "fields",
                    lambda o: o.error and [f"{e.pointer}: {e.detail}" for e in o.error.errors],
                ),
            ),
        )


@operation_group.command("wait")
@click.argument("operation_id")
@pass_session
def wait_operation(session: Session, operation_id: str) -> None:
    """Wait until an operation has finished; the exit status tells whether it succeeded."""
    with session.mica() as mica:
        operation = mica.operation(operation_id)
        session.finish(mica, operation, wait=True, done=f"operation {operation_id} succeeded")


@operation_group.command("cancel")
@click.argument("operation_id")
@pass_session
def cancel_operation(session: Session, operation_id: str) -> None:
    """Ask an operation to stop."""
    with session.mica() as mica:
        operation = mica.cancel(operation_id)
        session.finish(mica, operation, wait=False, done=f"operation {operation_id} succeeded")


def _code(problem: Problem) -> str:
    return problem.type.removeprefix(PROBLEM_TYPE_PREFIX)


def _far(operation: Operation) -> str | None:
    progress = operation.progress
    return f"{100 * progress.done // progress.total} %" if progress.total else None


COMMANDS = (operation_group,)
