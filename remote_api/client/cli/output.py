"""All output of the command.

Text from others (names, labels, reasons, messages) loses every character that a terminal would
interpret, and can't begin a new line; JSON has it in escapes. No other module of the client prints,
which a style test holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from remote_api.client.cli.tables import sort_key, table_lines
from remote_api.client.cli.yaml_text import yaml_text
from remote_api.client.errors import MisuseError
from vmkernel.text import clean_lines, escape_in_json, one_line

__all__ = [
    "Columns",
    "ask",
    "ask_secret",
    "between_frames",
    "byte_bar",
    "byte_target",
    "clear_screen",
    "end",
    "error_is_terminal",
    "flush",
    "listed",
    "ordered",
    "print_in_raw_terminal",
    "print_json",
    "print_line",
    "print_object",
    "print_paragraph",
    "print_rows",
    "print_yaml",
    "step_line",
]

_CELL_MAX = 10_000
_REDRAW_S = 0.1
"""More often than ten times a second says no more, and costs time."""
_ERASED = "\r\x1b[K"
_NOTHING = sort_key("-")[0]

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


def print_yaml(value: object, *, another: bool = False) -> None:
    """YAML of what JSON would show; `another` document follows one before."""
    if another:
        click.echo("---")
    click.echo(escape_in_json(yaml_text(value)))


def print_rows(
    rows: Iterable[Any], columns: Columns, *, headers: bool = True, whole: bool = False
) -> None:
    """A table with aligned columns. In a terminal, free text is cut to its width, unless the
    `whole` is wanted."""
    titles = [title for title, _ in columns]
    texts = [[_text(cell(row)) for _, cell in columns] for row in rows]
    most = None if whole or not sys.stdout.isatty() else shutil.get_terminal_size().columns
    ellipsis = "..." if _is_ascii() else "\N{HORIZONTAL ELLIPSIS}"
    for line in table_lines(titles, texts, headers=headers, most=most, ellipsis=ellipsis):
        click.echo(line)


def ordered(rows: Sequence[Any], cell: Callable[[Any], object], *, reverse: bool) -> list[Any]:
    """Rows by what a column shows of them; those that it shows nothing of come last."""

    def key(row: Any) -> tuple[int, float, str]:
        return sort_key(_text(cell(row)))

    last = [row for row in rows if key(row)[0] == _NOTHING]
    return [
        *sorted((row for row in rows if key(row)[0] != _NOTHING), key=key, reverse=reverse),
        *last,
    ]


@contextmanager
def step_line(title: str) -> Iterator[Callable[[str], None]]:
    """A status line on the error output; call what is yielded to change it."""
    with _StatusLine() as line:
        line.show(title)
        yield line.show


@contextmanager
def byte_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A line about bytes on the error output; call what is yielded with the number of new ones."""
    done, began, shown = 0, time.monotonic(), 0.0
    with _StatusLine() as line:

        def show(count: int) -> None:
            nonlocal done, shown
            done += count
            now = time.monotonic()
            if now - shown < _REDRAW_S and done < total:
                return
            shown = now
            rate = done / (now - began) if now > began else 0.0
            left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
            percent = f"{100 * done // total} %, " if total else ""
            line.show(
                f"{title}: {percent}{_size(done)} of {_size(total)}, {_size(int(rate))}/s{left}"
            )

        show(0)
        yield show


class _StatusLine:
    """One line of the error output that is written again and again, and is gone at the end.

    Only a terminal that can erase a line has it.
    """

    def __init__(self) -> None:
        self._works = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> _StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._works:
            click.echo(_ERASED, err=True, nl=False)

    def show(self, text: str) -> None:
        if self._works:
            room = max(shutil.get_terminal_size().columns - 1, 1)
            click.echo(f"{_ERASED}{one_line(text)[:room]}", err=True, nl=False)


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


def between_frames() -> None:
    """What divides a reading from the one before: an empty screen, or a blank line in a pipe."""
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        click.clear()
    else:
        click.echo()


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


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def _is_ascii() -> bool:
    """True if the user's locale knows no more than ASCII. Python itself always writes UTF-8."""
    return (os.environ.get("LC_ALL") or os.environ.get("LANG") or "") in ("C", "POSIX")
