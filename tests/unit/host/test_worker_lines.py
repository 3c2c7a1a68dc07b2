"""What a worker says is believed within ranges only: it may be in the hands of what it reads."""

from __future__ import annotations

import json

import pytest

from vmkernel.host.errors import HostError
from vmkernel.host.worker import Outcome, _Lines
from vmkernel.model import ErrorCode, MicaError


def test_progress_and_an_outcome() -> None:
    told: list[tuple[int, int]] = []
    lines = _Lines(lambda done, total: told.append((done, total)))
    lines.feed(b'{"done": 1, "total": 9}\n{"done": 2, "to')
    lines.feed(b'tal": 9}\n{"ok": {"size_bytes": 9, "url": "http://x"}}\n')
    assert told == [(1, 9), (2, 9)]
    assert lines.outcome("fetch") == Outcome(size_bytes=9, url="http://x")


@pytest.mark.parametrize(
    "line",
    [
        b'{"done": 1%s}' % (b"0" * 30),
        b'{"done": -1}',
        b'{"done": 1.5}',
        b'{"done": true}',
        b'{"done": 1, "total": 1%s}' % (b"0" * 30),
        b'{"ok": {"size_bytes": 1%s}}' % (b"0" * 30),
        b'{"ok": {"url": 7}}',
        b'{"error": "no-such-code"}',
        b'{"ok": ' + b"[" * 60_000 + b"}",
        b"x" * 70_000,
        b"\xff",
        b"[]",
        b"7",
    ],
    ids=lambda line: line[:40].decode(errors="replace"),
)
def test_what_is_out_of_range_fails_the_work(line: bytes) -> None:
    def outcome() -> None:
        lines = _Lines(lambda *_: None)
        lines.feed(line + b"\n")
        lines.outcome("unpack")

    with pytest.raises(HostError):
        outcome()


def test_a_refusal_is_cleaned() -> None:
    lines = _Lines(lambda *_: None)
    lines.feed(json.dumps({"error": "invalid", "detail": "\x1b[2J\u202ebad"}).encode() + b"\n")
    with pytest.raises(MicaError) as refused:
        lines.outcome("unpack")
    assert (refused.value.problem.code, str(refused.value)) == (ErrorCode.INVALID, "[2Jbad")


def test_a_flood_of_lines_is_ended_and_told_once_a_piece() -> None:
    told: list[int] = []
    lines = _Lines(lambda done, _: told.append(done))
    piece = b'{"done": 1, "total": 2}\n' * 2_000

    def flood() -> None:
        for _ in range(1_000):
            lines.feed(piece)

    with pytest.raises(HostError, match="too much"):
        flood()
    assert len(told) <= 1_000
