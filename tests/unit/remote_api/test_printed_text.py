"""What others chose reaches the terminal of who looks at it as text only."""

from __future__ import annotations

import json

import pytest

from remote_api.client.cli.common import Session, say, show_object, show_rows, tell
from remote_api.schema import Subject

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
    assert _printed(capsys).count("\n") == 2
    say(Session(output="table"), EVIL)
    tell(EVIL)
    assert SAFE in _printed(capsys)


def test_json_says_the_same_in_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    value = Subject(kind="vm", id=EVIL)
    show_object(Session(output="json"), value)
    assert json.loads(_printed(capsys))["id"] == EVIL
    show_rows(Session(output="json"), [value], ())
    assert json.loads(_printed(capsys))[0]["id"] == EVIL
