"""All output of the command.

Text from others (names, labels, reasons, messages) loses every character that a terminal would
interpret, and can't begin a new line; JSON has it in escapes. No other module of the client prints,
which a style test holds.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from remote_api.client.errors import MisuseError
from vmkernel.text import clean_lines, escape_in_json, one_line

__all__ = [
    "Columns",
    "ask",
    "ask_secret",
    "byte_bar",
    "byte_target",
    "clear_screen",
    "end",
    "error_is_terminal",
    "flush",
    "listed",
    "print_in_raw_terminal",
    "print_json",
    "print_line",
    "print_object",
    "print_paragraph",
    "print_rows",
    "step_line",
]

_CELL_MAX = 10_000

Columns = Sequence[tuple[str, Callable[[Any], object]]]


def listed(lines: Columns, *chosen: str | tuple[str, Callable[[Any], object]]) -> Columns:
    """The columns of a table, from the lines that show one object: by title, or a pair of its own
    if a column differs from the line."""
    cells = dict(lines)
    return [
        (one.upper(), cells[one]) if isinstance(one, str) else (one[0].upper(), one[1])
        for one in chosen
    ]


def print_line(text: str, *, err: bool = False) -> None:
    """One line, whatever `text` holds."""
    click.echo(one_line(text), err=err)


def print_paragraph(text: str, *, err: bool = False) -> None:
    """Lines that are ours: `text` keeps its line feeds, tabs and indents."""
    click.echo(clean_lines(text), err=err)


def print_json(value: object, *, compact: bool = False) -> None:
    """JSON, with escapes for characters that a terminal would interpret."""
    data = msgspec.json.encode(value)
    click.echo(escape_in_json((data if compact else msgspec.json.format(data, indent=2)).decode()))


def print_object(value: object, lines: Columns) -> None:
    """Named lines."""
    width = max(len(title) for title, _ in lines)
    for title, cell in lines:
        print_line(f"{title:{width}}  {_text(cell(value))}")


def print_rows(rows: Iterable[Any], columns: Columns) -> None:
    """A table for people; lines with tabs between their cells if it goes into a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(_text(cell(row)) for _, cell in columns))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, _ in columns:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(cell(row))) for _, cell in columns))
    Console().print(table)


@contextmanager
def step_line(title: str) -> Iterator[Callable[[str], None]]:
    """A status line on the error output; call what is yielded to change it."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(_text(title))
        yield lambda text: progress.update(task, description=_text(text))


@contextmanager
def byte_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on the error output; call what is yielded with the number of new bytes."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(_text(title), total=total)
        yield lambda count: progress.update(task, advance=count)


def byte_target(file: Path) -> Path | BinaryIO:
    """The file, or the standard output for `-`. Raises MisuseError if that is a terminal, which
    would act on a guest's bytes."""
    if str(file) != "-":
        return file
    if sys.stdout.isatty():
        raise MisuseError(
            "won't write binary data to a terminal: name a file, or redirect the output"
        )
    return sys.stdout.buffer


def flush() -> None:
    """Let all that was printed go."""
    sys.stdout.flush()


def end() -> None:
    """Print nothing more to the standard output, nor what Python still holds for it."""
    with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def ask(question: str) -> bool:
    """A question on the error output. Raises click.Abort if it gets no answer."""
    return click.confirm(one_line(question), err=True)


def ask_secret(question: str) -> str:
    """A secret, typed twice without being shown."""
    secret: str = click.prompt(
        one_line(question), hide_input=True, confirmation_prompt=True, err=True
    )
    return secret


def print_in_raw_terminal(text: str) -> None:
    """One line on the error output while the terminal belongs to a guest's console."""
    click.echo(f"\r\n{one_line(text)}\r", err=True)


def clear_screen() -> None:
    """Clear the terminal; nothing if the output isn't one."""
    click.clear()


def error_is_terminal() -> bool:
    """True if people see the error output at once."""
    return sys.stderr.isatty()


def _text(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(_text(item) for item in value) or "-"
    return one_line(str(value)[:_CELL_MAX])
