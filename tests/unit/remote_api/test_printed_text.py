"""What others chose reaches the terminal of who looks at it as text only."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from remote_api.client.cli import main, output
from remote_api.client.cli.session import Session, say, show_object, show_rows
from remote_api.client.errors import UnexpectedError
from vmkernel.model import Subject

EVIL = "a\x1b]52;c;eA==\x07\x1b[2J\x9b2J\u202eb\rc"
SAFE = "a]52;c;eA==[2J2Jb"


def _printed(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().out
    assert not any(
        (c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f" or c == "\u202e" for c in text
    )
    return text


def test_objects_and_lists(capsys: pytest.CaptureFixture[str]) -> None:
    value = Subject(kind="vm", id=EVIL)
    columns = (("id", lambda subject: subject.id), ("all", lambda subject: (subject.id, "x")))
    show_object(Session(output="table"), value, columns)
    assert SAFE in _printed(capsys)
    show_rows(Session(output="table"), [value, value], columns)
    assert _printed(capsys).count("\n") == 3
    say(Session(output="table"), EVIL)
    output.print_line(EVIL)
    output.print_paragraph(EVIL)
    output.print_in_raw_terminal(EVIL)
    assert SAFE.replace("bc", "b c") in _printed(capsys)


def test_a_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that others chose can look like a line of ours."""
    value = Subject(kind="vm", id="a\nmica: all is well\x85b\u2028c")
    output.print_line(value.id)
    output.print_object(value, (("id", lambda subject: subject.id),))
    output.print_rows([value], (("id", lambda subject: subject.id),))
    assert _printed(capsys).splitlines() == [
        "a mica: all is well b c",
        "id  a mica: all is well b c",
        "id",
        "a mica: all is well b c",
    ]


def test_indents_of_a_list_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """Snapshots are shown as a tree."""
    output.print_rows(["a"], (("SNAPSHOT", lambda name: f"    {name}"),), headers=False)
    assert _printed(capsys) == "    a\n"


@pytest.mark.parametrize("error", [click.UsageError, click.ClickException, RuntimeError])
def test_errors_are_cleaned_too(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error(EVIL) if error is not RuntimeError else UnexpectedError(EVIL)

    monkeypatch.setattr(Session, "known_host", fail)
    result = CliRunner().invoke(main, ["vm", "list"])
    assert result.exit_code in (1, 2)
    assert "52;c;eA==" in result.stderr
    assert not set(result.stderr) & set("\x1b\x9b\x07\u202e\r")


def test_questions_and_progress_are_cleaned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(click.Abort):
        output.ask(EVIL)
    with output.step_line(EVIL) as step:
        step(f"[red]{EVIL}")
    with output.byte_bar(EVIL, 1):
        pass
    told = capsys.readouterr().err
    assert not set(told) & set("\x9b\x07\u202e")


def test_a_table_shows_text_as_it_is() -> None:
    """No mark-up of the library that draws it is read in what others chose."""
    script = (
        "from remote_api.client.cli import output;"
        "output.print_rows(['[bold]x[/bold] :smile:'], (('A', str),))"
    )
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", script], stdout=theirs, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert "[bold]x[/bold] :smile:" in shown


def test_a_guest_s_bytes_do_not_go_to_a_terminal(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from remote_api.client.cli import output;"
        "output.byte_target(Path('-')).write(b'\\x1b[2J')"
    )
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=theirs, stderr=subprocess.PIPE, timeout=60
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 1
    assert b"won't write binary data to a terminal: name a file" in done.stderr
    piped = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert piped.stdout == b"\x1b[2J"
    assert output.byte_target(tmp_path / "x") == tmp_path / "x"


def test_json_says_the_same_in_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    value = Subject(kind="vm", id=EVIL)
    show_object(Session(output="json"), value)
    assert json.loads(_printed(capsys))["id"] == EVIL
    show_rows(Session(output="json"), [value], ())
    assert json.loads(_printed(capsys))[0]["id"] == EVIL
    show_rows(Session(output="yaml"), [value], ())
    kind, name = _printed(capsys).splitlines()
    assert (kind, json.loads(name.removeprefix("  id: "))) == ("- kind: vm", EVIL)
    show_rows(Session(output="name"), [value], ())
    assert _printed(capsys) == f"{SAFE.replace('Jb', 'Jb c')}\n"
