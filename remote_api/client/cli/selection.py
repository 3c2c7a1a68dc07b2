"""Several objects in one command: by name, by label, or all; a result for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from remote_api.client.cli import output
from remote_api.client.cli.session import Session, print_value
from remote_api.client.cli.words import in_words_of_the_command
from remote_api.client.errors import (
    ClientError,
    ConflictError,
    OperationFailedError,
    RefusedError,
)
from remote_api.client.sdk import Mica
from vmkernel.model import Operation, Vm

__all__ = [
    "Selected",
    "for_each",
    "named_or_chosen",
    "named_vms",
    "selecting_options",
    "started_for_each",
]

_OF_ONE = (RefusedError, OperationFailedError, ConflictError)
"""Failures that concern one object; after others, such as a lost connection, nothing goes on."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Which VMs the command line asks for."""

    names: tuple[str, ...]
    every: bool
    labels: tuple[str, ...]


def selecting_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--all` and `--label` for commands that take VMs."""
    every = click.option(
        "--all", "every", is_flag=True, help="All VMs that this can be done to, but no templates."
    )
    labels = click.option(
        "-l",
        "--label",
        "labels",
        multiple=True,
        metavar="SELECTOR",
        help="All such VMs whose labels match: KEY=VALUE, KEY!=VALUE, KEY or !KEY. Repeatable; all"
        " must hold.",
    )
    return every(labels(function))


def named_vms(mica: Mica, selected: Selected, concerns: Callable[[Vm], bool]) -> tuple[str, ...]:
    """The names of the VMs that are asked for, each once."""
    ways = [bool(selected.names), selected.every, bool(selected.labels)]
    if sum(ways) != 1:
        raise click.UsageError("give the names of VMs, --all or --label")
    if selected.names:
        return tuple(dict.fromkeys(selected.names))
    known = mica.vms(label=selected.labels) if selected.labels else mica.vms()
    return tuple(vm.id for vm in known if not vm.spec.template and concerns(vm))


def named_or_chosen(selected: Selected) -> str:
    """The message if no VM is found."""
    if selected.labels:
        return f"no VM with label {', '.join(selected.labels)} needs this; nothing was changed"
    return "no VM needs this; nothing was changed"


def for_each(noun: str, names: Sequence[str], call: Callable[[str], None]) -> int:
    """Call for each name, going on after failures. The exit status: 1 if any failed. The failure of
    a single one is raised."""
    failed = 0
    for name in names:
        try:
            call(name)
        except _OF_ONE as error:
            if len(names) == 1:
                raise
            _tell_failure(noun, name, error)
            failed = 1
    return failed


def started_for_each(
    session: Session,
    mica: Mica,
    noun: str,
    names: Sequence[str],
    call: Callable[[Mica, str], Operation],
    *,
    wait: bool,
    done: str,
) -> int:
    """Start an operation for each name, then wait for them all; the exit status as of
    `for_each`."""
    names = tuple(dict.fromkeys(names))
    if len(names) == 1:
        session.finish(mica, call(mica, names[0]), wait=wait, done=done.format(id=names[0]))
        return 0
    started: dict[str, Operation] = {}
    ended: list[Operation] = []

    def start(name: str) -> None:
        started[name] = call(mica, name)

    def finish(name: str) -> None:
        operation = started[name]
        try:
            if wait:
                operation = session.waited(mica, operation)
        except OperationFailedError as error:
            ended.append(error.operation)
            raise
        ended.append(operation)
        if not session.json:
            session.tell(operation, done=done.format(id=name))

    failed = for_each(noun, names, start)
    for name in tuple(started):
        try:
            finish(name)
        except _OF_ONE as error:
            _tell_failure(noun, name, error)
            failed = 1
    if session.json:
        print_value(session, ended)
    return failed


def _tell_failure(noun: str, name: str, error: ClientError) -> None:
    """One failure among several, in one line."""
    shown = "VM" if noun == "vm" else noun
    output.print_line(f"mica: {shown} {name}: {in_words_of_the_command(str(error))}", err=True)
