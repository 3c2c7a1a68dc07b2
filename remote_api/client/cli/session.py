"""What all commands share: the chosen host, the form of the output, waiting with progress."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click
import msgspec

from remote_api.client.cli import output
from remote_api.client.cli.contexts import ContextStore, KnownHost, default_store
from remote_api.client.cli.output import Columns
from remote_api.client.cli.tables import column_name
from remote_api.client.errors import DeclinedError, MisuseError
from remote_api.client.sdk import Mica, OnBytes
from vmkernel.model import Operation, OperationState

__all__ = [
    "Layout",
    "Session",
    "bytes_text",
    "confirm",
    "pass_session",
    "print_value",
    "say",
    "show_object",
    "show_rows",
    "wait_option",
]

T = TypeVar("T")


@dataclass(kw_only=True)
class Layout:
    """How a list is laid out for people."""

    headers: bool = True
    columns: str | None = None
    """Titles of the columns to show, with commas between them."""
    sort: str | None = None
    """The title of the column to sort by; `-` before it reverses the order."""


@dataclass(kw_only=True)
class Session:
    """One run of the command."""

    output: str = "table"
    host_name: str | None = None
    timeout_s: float = 60.0
    quiet: bool = False
    debug: bool = False
    layout: Layout = field(default_factory=Layout)
    store: ContextStore = field(default_factory=default_store)

    @property
    def json(self) -> bool:
        """True if the output is for programs: JSON, or the same as YAML."""
        return self.output in ("json", "yaml")

    @property
    def names(self) -> bool:
        """True if the output is names alone, one per line."""
        return self.output == "name"

    @property
    def progress(self) -> bool:
        """True if progress is shown: the error output is a terminal."""
        return output.error_is_terminal() and not self.quiet

    @property
    def from_environment(self) -> bool:
        """True if MICA_HOST has the host's address; `--host` comes before it, and it may be the
        name of a context, too."""
        given = os.environ.get("MICA_HOST")
        return bool(given) and self.host_name is None and given not in self.store.load()[1]

    def known_host(self) -> KnownHost:
        """The host to talk to: of `--host`, of the environment, or the current one."""
        if self.from_environment and (address := os.environ.get("MICA_HOST")):
            return KnownHost(
                address=address,
                token=os.environ.get("MICA_TOKEN"),
                fingerprint_sha256=os.environ.get("MICA_FINGERPRINT"),
            )
        return self.store.get(self.host_name or os.environ.get("MICA_HOST") or None)

    @contextmanager
    def mica(self) -> Iterator[Mica]:
        """A client of the chosen host."""
        known = self.known_host()
        with Mica(
            known.address,
            token=known.token,
            fingerprint=known.fingerprint_sha256,
            timeout_s=self.timeout_s,
            hooks=_debugging() if self.debug else None,
        ) as mica:
            yield mica

    def finish(self, mica: Mica, operation: Operation, *, wait: bool, done: str) -> None:
        """Show an operation: once it has finished if `wait`, with its progress until then."""
        if wait:
            operation = self.waited(mica, operation)
        self.tell(operation, done=done)

    def tell(self, operation: Operation, *, done: str) -> None:
        """Show an operation as it is; `done` is the message if it has succeeded."""
        if self.names:
            output.print_line(operation.subject.id)
        elif self.json:
            show_object(self, operation)
        elif operation.state is OperationState.SUCCEEDED:
            say(self, f"{done} (nothing to do)" if operation.unchanged else done)
        else:
            say(self, f"operation {operation.id} ({operation.kind}) is {operation.state}")

    def waited(self, mica: Mica, operation: Operation) -> Operation:
        """The operation once it has succeeded, with its progress until then."""
        try:
            return self._wait(mica, operation)
        except KeyboardInterrupt:
            if not self.quiet:
                output.print_line(
                    f"mica: operation {operation.id} continues on the host; wait for it with"
                    f" `mica operation wait {operation.id}`, or cancel it with"
                    f" `mica operation cancel {operation.id}`",
                    err=True,
                )
            raise

    def _wait(self, mica: Mica, operation: Operation) -> Operation:
        if not self.progress:
            return mica.wait(operation)
        with output.step_line(f"{operation.kind} {operation.subject.id}") as step:

            def show(now: Operation) -> None:
                far = ""
                if now.progress.total:
                    far = f" {100 * now.progress.done // now.progress.total} %"
                stage = f": {now.progress.stage}" if now.progress.stage else ""
                step(f"{now.kind} {now.subject.id}{stage}{far}")

            return mica.wait(operation, on_progress=show)

    @contextmanager
    def byte_bar(self, title: str, total: int) -> Iterator[OnBytes | None]:
        """A progress bar for bytes, if progress is shown."""
        if not self.progress:
            yield None
            return
        with output.byte_bar(title, total) as on_bytes:
            yield on_bytes


pass_session = click.make_pass_decorator(Session)


def wait_option(function: Callable[..., T]) -> Callable[..., T]:
    """`--wait/--no-wait` for commands that start an operation."""
    return click.option(
        "--wait/--no-wait",
        default=True,
        show_default=True,
        help="Wait for the operation to finish.",
    )(function)


def bytes_text(count: int) -> str:
    """A number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.0f} TiB" if value == int(value) else f"{value:.1f} TiB"


def confirm(question: str, *, option: str = "--yes") -> None:
    """Ask for confirmation. Raises DeclinedError after a no, and MisuseError if the input has
    ended: `option` is what the command line needs then."""
    try:
        agreed = output.ask(question)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            output.print_line("", err=True)
            raise MisuseError(f"no terminal to ask for confirmation: give {option}") from error
        raise
    if not agreed:
        raise DeclinedError("cancelled; nothing was changed")


def say(session: Session, text: str) -> None:
    """A line for people; programs get JSON, YAML or names only."""
    if not session.json and not session.names and not session.quiet:
        output.print_line(text)


def show_object(session: Session, value: msgspec.Struct, lines: Columns = ()) -> None:
    """One object: named lines for people, its name, or JSON or YAML."""
    if session.names:
        output.print_line(_name_of(value))
    elif session.json or not lines:
        print_value(session, value)
    else:
        output.print_object(value, lines)


def show_rows(
    session: Session, items: Iterable[Any], columns: Columns, *, more: Columns = ()
) -> None:
    """A list: a table for people, its names, or a JSON or YAML array. `more` columns are shown if
    they are chosen, or by `-o wide`."""
    layout, known = session.layout, [*columns, *more]
    wide = session.output == "wide"
    if layout.columns and (session.json or session.names):
        raise click.UsageError(f"--columns is for tables, not for -o {session.output}")
    chosen: Columns = known if wide else columns
    if layout.columns:
        chosen = [_column(known, title, "--columns") for title in layout.columns.split(",")]
    rows = list(items)
    if layout.sort:
        title = layout.sort
        cell = _column(known, title.removeprefix("-"), "--sort")[1]
        rows = output.ordered(rows, cell, reverse=title.startswith("-"))
    if session.json:
        print_value(session, rows)
    elif session.names:
        for row in rows:
            output.print_line(_name_of(row))
    else:
        output.print_rows(rows, chosen, headers=layout.headers, whole=wide)


def print_value(session: Session, value: object) -> None:
    """A value for programs."""
    if session.output == "yaml":
        output.print_yaml(value)
    else:
        output.print_json(value)


def _name_of(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("name") or value.get("id"))
    if isinstance(value, tuple):  # a row of a tree: its depth, and the object
        return _name_of(value[-1])
    return str(getattr(value, "id", None) or getattr(value, "name", None) or value)


def _column(columns: Columns, title: str, option: str) -> tuple[str, Callable[[Any], object]]:
    for found in columns:
        if column_name(found[0]) == column_name(title.strip()):
            return found
    there = ", ".join(column_name(name) for name, _ in columns)
    raise click.UsageError(f"{option}: there is no column {title!r}; use one of {there}")


def _debugging() -> dict[str, list[Any]]:
    """Hooks that show each call on the error output, without its body and its token."""
    began: dict[int, float] = {}

    def sending(request: Any) -> None:
        began[id(request)] = time.monotonic()
        output.print_line(f"mica: > {request.method} {request.url}", err=True)

    def answered(response: Any) -> None:
        took = time.monotonic() - began.pop(id(response.request), time.monotonic())
        length = response.headers.get("content-length")
        size = f", {length} bytes" if length else ""
        output.print_line(
            f"mica: < {response.status_code} {response.reason_phrase}, {1000 * took:.0f} ms{size}",
            err=True,
        )

    return {"request": [sending], "response": [answered]}
