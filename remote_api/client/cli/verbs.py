"""Commands that are the same for every noun: list, show, delete, and steps that take one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from remote_api.client.cli.output import Columns
from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import (
    Session,
    pass_session,
    say,
    show_object,
    show_rows,
    wait_option,
)
from remote_api.client.sdk import Mica
from vmkernel.model import Operation

__all__ = [
    "delete_command",
    "list_command",
    "new_name_argument",
    "object_argument",
    "show_command",
    "step_command",
    "vm_argument",
    "yes_option",
]

Parameter = Callable[[Callable[..., Any]], Callable[..., Any]]


def object_argument(noun: str) -> Parameter:
    """The name of an object as `<noun>_id`, shown as the noun."""
    return click.argument(f"{noun}_id", type=NAME, metavar=noun.upper())


vm_argument = object_argument("vm")
new_name_argument = click.argument("new_id", type=NAME, metavar="NEW_NAME")
yes_option = click.option("--yes", is_flag=True, help="Don't ask for confirmation.")


def list_command(
    fetch: Callable[..., Iterable[Any]],
    columns: Columns,
    *,
    text: str,
    name: str = "list",
    parameters: Sequence[Parameter] = (),
) -> click.Command:
    """A command that lists what `fetch` finds with its parameters."""
    return _showing(show_rows, fetch, columns, text, name, parameters)


def show_command(
    fetch: Callable[..., Any],
    lines: Columns,
    *,
    text: str,
    name: str = "show",
    parameters: Sequence[Parameter] = (),
) -> click.Command:
    """A command that shows the object that `fetch` finds with its parameters."""
    return _showing(show_object, fetch, lines, text, name, parameters)


def _showing(
    show: Callable[[Session, Any, Columns], None],
    fetch: Callable[..., Any],
    columns: Columns,
    text: str,
    name: str,
    parameters: Sequence[Parameter],
) -> click.Command:
    @pass_session
    def run(session: Session, /, **given: Any) -> None:
        with session.mica() as mica:
            show(session, fetch(mica, **given), columns)

    return _command(name, text, run, parameters)


def delete_command(noun: str, call: Callable[[Mica, str], None], *, text: str) -> click.Command:
    """A command that deletes an object at once."""

    @pass_session
    def run(session: Session, /, **given: str) -> None:
        object_id = given[f"{noun}_id"]
        with session.mica() as mica:
            call(mica, object_id)
        say(session, f"{noun} {object_id} deleted")

    return _command("delete", text, run, (object_argument(noun),))


def step_command(
    name: str, noun: str, call: Callable[[Mica, str], Operation], *, done: str, text: str
) -> click.Command:
    """A command that starts an operation on one object; `done` is its message, with an `{id}`."""

    @pass_session
    def run(session: Session, /, wait: bool, **given: str) -> None:
        object_id = given[f"{noun}_id"]
        with session.mica() as mica:
            operation = call(mica, object_id)
            session.finish(mica, operation, wait=wait, done=done.format(id=object_id))

    return _command(name, text, run, (object_argument(noun), wait_option))


def _command(
    name: str, text: str, run: Callable[..., None], parameters: Sequence[Parameter]
) -> click.Command:
    for parameter in reversed(parameters):
        run = parameter(run)
    return click.command(name, help=text)(run)
