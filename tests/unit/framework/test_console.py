"""The console that boot tests wait on: lines, escapes, known-bad patterns, prompts."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.console import Console, ConsoleTimeoutError, KnownBadError, SocketWire


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[tuple[socket.socket, Console]]:
    """The machine's end, and the console that reads the other."""
    machine, ours = socket.socketpair()
    console = Console(SocketWire(ours), tmp_path / "log", tolerate=("FAILED. is fine",))
    yield machine, console
    machine.close()
    console.close()
    ours.close()


def test_lines_come_without_escapes_and_with_their_time(
    wire: tuple[socket.socket, Console],
) -> None:
    machine, console = wire
    began = time.monotonic()
    machine.sendall(b"\x1b[1;32mhel")
    machine.sendall(b"lo\x1b[0m world\r\r\nsecond\n")
    match, line = console.expect(r"^hello (\w+)$", timeout_s=5, what="a greeting")
    assert match.group(1) == "world"
    assert began <= line.time_s <= time.monotonic()
    console.expect("second", timeout_s=5, what="the rest")


def test_a_part_of_a_line_is_looked_at_where_asked(wire: tuple[socket.socket, Console]) -> None:
    machine, console = wire
    machine.sendall(b"choose one: ")
    console.expect("choose", timeout_s=5, what="a prompt", partial=True)
    with pytest.raises(ConsoleTimeoutError, match="choose one"):
        console.expect("choose", timeout_s=0.2, what="a whole line")


@pytest.mark.parametrize(
    "line",
    [
        "[   12.3] Kernel panic - not syncing: Attempted to kill init!",
        "[FAILED] Failed to start mica-api.service",
        "Traceback (most recent call last):",
    ],
)
def test_what_is_known_to_be_bad_ends_every_wait(
    wire: tuple[socket.socket, Console], line: str
) -> None:
    machine, console = wire
    machine.sendall(line.encode() + b"\n")
    began = time.monotonic()
    with pytest.raises(KnownBadError):
        console.expect("never", timeout_s=30, what="nothing")
    assert time.monotonic() - began < 10


def test_what_is_tolerated_is_not_bad(wire: tuple[socket.socket, Console]) -> None:
    machine, console = wire
    machine.sendall(b"[FAILED] is fine\nready\n")
    console.expect("ready", timeout_s=5, what="the end")


def test_an_answer_is_the_next_line_that_starts_as_the_question(
    wire: tuple[socket.socket, Console],
) -> None:
    """What was said before the question is none, also where it comes late."""
    machine, console = wire

    def answer(text: str) -> None:
        console._wire.send(text.encode())
        assert machine.recv(100) == text.encode()
        if text.startswith("echo "):
            machine.sendall(b"sum vda 0 512: old\n" + text.encode())
        else:
            machine.sendall(b"tick 1\nsum vda 0 512: new\n")

    console.send = answer  # type: ignore[method-assign]
    assert console.ask("sum vda 0 512", timeout_s=5) == "vda 0 512: new"


def test_the_end_of_the_line_ends_the_wait(wire: tuple[socket.socket, Console]) -> None:
    machine, console = wire
    machine.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConsoleTimeoutError, match="closed"):
        console.expect("never", timeout_s=30, what="nothing")
