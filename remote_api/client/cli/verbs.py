"""Commands that are the same for every noun: list, show, delete, and steps that take objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from remote_api.client.cli.output import Columns
from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.readings import INTERVAL_S, repeat, watch_option
from remote_api.client.cli.selection import (
    Selected,
    for_each,
    named_or_chosen,
    named_vms,
    selecting_options,
    started_for_each,
)
from remote_api.client.cli.session import (
    Session,
    confirm,
    pass_session,
    say,
    show_object,
    show_rows,
    wait_option,
)
from remote_api.client.sdk import Mica
from vmkernel.model import Operation, Vm

__all__ = [
    "delete_command",
    "layout_options",
    "list_command",
    "new_name_argument",
    "object_argument",
    "show_command",
    "step_command",
    "vm_argument",
    "vm_step_command",
    "yes_option",
]

Parameter = Callable[[Callable[..., Any]], Callable[..., Any]]


def object_argument(noun: str) -> Parameter:
    """The name of an object as `<noun>_id`, shown as the noun."""
    return click.argument(f"{noun}_id", type=NAME, metavar=noun.upper())


vm_argument = object_argument("vm")
new_name_argument = click.argument("new_id", type=NAME, metavar="NEW_NAME")
yes_option = click.option("--yes", is_flag=True, help="Don't ask for confirmation.")


def layout_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--columns`, `--sort` and `--no-headers` for commands that show a table by `show_rows`."""
    for name, option in (
        (
            "headers",
            {"flag_value": False, "help": "Leave out the line of headers."},
        ),
        (
            "sort",
            {"metavar": "COLUMN", "help": "Sort by this column; `-COLUMN` reverses the order."},
        ),
        (
            "columns",
            {
                "metavar": "COLUMN,...",
                "help": "Show these columns; `-o wide` shows all that there are.",
            },
        ),
    ):
        shown = "--no-headers" if name == "headers" else f"--{name}"
        function = click.option(
            shown, name, expose_value=False, default=None, callback=_lay_out, **option
        )(function)
    return function


def _lay_out(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value is not None and isinstance(context.obj, Session):
        setattr(context.obj.layout, option.name or "", value)


def list_command(
    fetch: Callable[..., Iterable[Any]],
    columns: Columns,
    *,
    text: str,
    name: str = "list",
    parameters: Sequence[Parameter] = (),
    lines: Columns = (),
) -> click.Command:
    """A command that lists what `fetch` finds with its parameters. `lines` are those that show one
    object: what `columns` lacks of them can be chosen, too."""
    known = {title for title, _ in columns}
    more = [(title.upper(), cell) for title, cell in lines if title.upper() not in known]

    @layout_options
    @watch_option
    @pass_session
    def run(session: Session, /, watch: bool, **given: Any) -> None:
        with session.mica() as mica:
            repeat(
                lambda: show_rows(session, fetch(mica, **given), columns, more=more),
                INTERVAL_S,
                watch=watch,
                at_once=True,
            )

    return _command(name, text, run, parameters)


def show_command(
    fetch: Callable[..., Any],
    lines: Columns | Callable[[Any], Columns],
    *,
    text: str,
    name: str = "show",
    parameters: Sequence[Parameter] = (),
) -> click.Command:
    """A command that shows the object that `fetch` finds with its parameters."""

    @watch_option
    @pass_session
    def run(session: Session, /, watch: bool, **given: Any) -> None:
        def show() -> None:
            found = fetch(mica, **given)
            show_object(session, found, lines(found) if callable(lines) else lines)

        with session.mica() as mica:
            repeat(show, INTERVAL_S, watch=watch, at_once=True)

    return _command(name, text, run, parameters)


def delete_command(
    noun: str, call: Callable[[Mica, str], None], *, text: str, kept: str
) -> click.Command:
    """A command that deletes objects after a question; `kept` says what is lost and what stays."""

    @yes_option
    @pass_session
    def run(session: Session, /, names: tuple[str, ...], yes: bool) -> int:
        if not yes:
            confirm(f"Delete {noun}{'s' * (len(names) > 1)} {', '.join(names)}? {kept}")
        with session.mica() as mica:

            def delete(name: str) -> None:
                call(mica, name)
                say(session, f"{noun} {name} deleted")

            return for_each(noun, names, delete)

    return _command("delete", text, run, (_names_argument(noun),))


def step_command(
    name: str,
    noun: str,
    call: Callable[[Mica, str], Operation],
    *,
    done: str,
    text: str,
    ask: str | None = None,
) -> click.Command:
    """A command that starts an operation on each object; `done` is its message, with an `{id}`,
    and `ask` what is asked before, with `{names}`."""

    @pass_session
    def run(session: Session, /, names: tuple[str, ...], wait: bool, yes: bool = False) -> int:
        if ask is not None and not yes:
            confirm(ask.format(names=", ".join(names)))
        with session.mica() as mica:
            return started_for_each(session, mica, noun, names, call, wait=wait, done=done)

    asking = () if ask is None else (yes_option,)
    return _command(name, text, run, (_names_argument(noun), *asking, wait_option))


def vm_step_command(
    name: str,
    call: Callable[..., Operation],
    *,
    done: str,
    text: str,
    concerns: Callable[[Vm], bool],
    parameters: Sequence[Parameter] = (),
    ask: str | None = None,
) -> click.Command:
    """A command that starts an operation on VMs: by name, by label, or on all that it
    `concerns`. `call` gets the parameters."""

    @selecting_options
    @pass_session
    def run(
        session: Session,
        /,
        names: tuple[str, ...],
        every: bool,
        labels: tuple[str, ...],
        wait: bool,
        yes: bool = False,
        **given: Any,
    ) -> int:
        selected = Selected(names=names, every=every, labels=labels)
        with session.mica() as mica:
            found = named_vms(mica, selected, concerns)
            if not found:
                say(session, named_or_chosen(selected))
                return 0
            if ask is not None and not yes:
                confirm(ask.format(names=", ".join(found)))

            def start(of: Mica, vm_id: str) -> Operation:
                return call(of, vm_id, **given)

            return started_for_each(session, mica, "vm", found, start, wait=wait, done=done)

    asking = () if ask is None else (yes_option,)
    return _command(
        name, text, run, (_names_argument("vm", required=False), *asking, *parameters, wait_option)
    )


def _names_argument(noun: str, *, required: bool = True) -> Parameter:
    return click.argument(
        "names", type=NAME, nargs=-1, required=required, metavar=f"{noun.upper()}..."
    )


def _command(
    name: str, text: str, run: Callable[..., int | None], parameters: Sequence[Parameter]
) -> click.Command:
    for parameter in reversed(parameters):
        run = parameter(run)
    return click.command(name, help=text)(run)
