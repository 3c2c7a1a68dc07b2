"""What all commands share: the chosen host, the form of the output, waiting with progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click
import msgspec

from remote_api.client.cli import output
from remote_api.client.cli.contexts import ContextStore, KnownHost, default_store
from remote_api.client.cli.output import Columns
from remote_api.client.errors import DeclinedError, MisuseError
from remote_api.client.sdk import Mica, OnBytes
from vmkernel.model import Operation, OperationState

__all__ = [
    "Session",
    "bytes_text",
    "confirm",
    "pass_session",
    "say",
    "show_object",
    "show_rows",
    "wait_option",
]

T = TypeVar("T")


@dataclass(kw_only=True)
class Session:
    """One run of the command."""

    output: str = "table"
    host_name: str | None = None
    timeout_s: float = 60.0
    quiet: bool = False
    store: ContextStore = field(default_factory=default_store)

    @property
    def json(self) -> bool:
        """True if the output is for programs."""
        return self.output == "json"

    @property
    def progress(self) -> bool:
        """True if progress is shown: the error output is a terminal."""
        return output.error_is_terminal() and not self.quiet

    @property
    def from_environment(self) -> bool:
        """True if MICA_HOST names the host, not a context."""
        return bool(os.environ.get("MICA_HOST"))

    def known_host(self) -> KnownHost:
        """The host to talk to: of the environment, of `--host`, or the current one."""
        if address := os.environ.get("MICA_HOST"):
            return KnownHost(
                address=address,
                token=os.environ.get("MICA_TOKEN"),
                fingerprint_sha256=os.environ.get("MICA_FINGERPRINT"),
            )
        return self.store.get(self.host_name)

    @contextmanager
    def mica(self) -> Iterator[Mica]:
        """A client of the chosen host."""
        known = self.known_host()
        with Mica(
            known.address,
            token=known.token,
            fingerprint=known.fingerprint_sha256,
            timeout_s=self.timeout_s,
        ) as mica:
            yield mica

    def finish(self, mica: Mica, operation: Operation, *, wait: bool, done: str) -> None:
        """Show an operation: once it has finished if `wait`, with its progress until then."""
        if wait:
            try:
                operation = self._wait(mica, operation)
            except KeyboardInterrupt:
                if not self.quiet:
                    output.print_line(
                        f"mica: operation {operation.id} continues on the host; wait for it with"
                        f" `mica operation wait {operation.id}`, or cancel it with"
                        f" `mica operation cancel {operation.id}`",
                        err=True,
                    )
                raise
        if self.json:
            show_object(self, operation)
        elif operation.state is OperationState.SUCCEEDED:
            say(self, f"{done} (nothing to do)" if operation.unchanged else done)
        else:
            say(self, f"operation {operation.id} ({operation.kind}) is {operation.state}")

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
    """A line for people; programs get JSON only."""
    if not session.json and not session.quiet:
        output.print_line(text)


def show_object(session: Session, value: msgspec.Struct, lines: Columns = ()) -> None:
    """One object: named lines for people, or JSON."""
    if session.json or not lines:
        output.print_json(value)
    else:
        output.print_object(value, lines)


def show_rows(session: Session, items: Iterable[Any], columns: Columns) -> None:
    """A list: a table for people, or a JSON array."""
    rows = list(items)
    if session.json:
        output.print_json(rows)
    else:
        output.print_rows(rows, columns)
