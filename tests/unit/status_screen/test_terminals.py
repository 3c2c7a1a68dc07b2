"""The terminals: a pseudo terminal stands for a serial line and for a screen."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.status_screen.test_view import view
from vmkernel.host.terminal import Terminal, console_names
from vmkernel.status_screen import Terminals


class Line:
    """A pseudo terminal under a name of the kernel's."""

    def __init__(self, folder: Path, name: str) -> None:
        self.master, slave = pty.openpty()
        (folder / name).symlink_to(os.ttyname(slave))
        self._slave = slave
        os.set_blocking(self.master, False)

    def read(self) -> str:
        """What was written so far."""
        parts = b""
        try:
            while data := os.read(self.master, 65536):
                parts += data
        except OSError:
            pass
        return parts.decode()

    def close(self) -> None:
        """End it."""
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[dict[str, Line]]:
    """A screen and a serial line below `tmp_path`."""
    made = {name: Line(tmp_path, name) for name in ("tty1", "ttyS0")}
    yield made
    for line in made.values():
        line.close()


def test_names_come_from_the_kernel(tmp_path: Path) -> None:
    folder = tmp_path / "class/tty/console"
    folder.mkdir(parents=True)
    (folder / "active").write_text("tty0 ttyS0\n")
    assert console_names(tmp_path) == ("tty1", "ttyS0")
    assert console_names(tmp_path / "none") == ("tty1",)


def test_input_is_neither_echoed_nor_a_signal(tmp_path: Path, lines: dict[str, Line]) -> None:
    terminal = Terminal("ttyS0", tmp_path)
    flags = termios.tcgetattr(lines["ttyS0"].master)[3]
    assert not flags & (termios.ECHO | termios.ISIG | termios.ICANON)
    os.write(lines["ttyS0"].master, b"typed\n\x03")
    assert lines["ttyS0"].read() == ""
    terminal.close()


def test_story_then_status_then_only_changes(tmp_path: Path, lines: dict[str, Line]) -> None:
    console = Terminals.open(("tty1", "ttyS0", "ttyS9"), dev=tmp_path)
    console.stage("vmkernel started")
    for line in lines.values():
        assert line.read().startswith("mica: vmkernel started (")
    assert console.show(view())
    assert "Mica 1.2.3 is ready\r\n" in lines["ttyS0"].read()
    screen = lines["tty1"].read()
    assert "\x1b[2J" in screen
    assert "Mica 1.2.3" in screen
    assert not console.show(view())
    assert lines["tty1"].read() == lines["ttyS0"].read() == ""
    assert console.show(view(claim_code="ABCDE-FGHJK"))
    assert "Claim code: ABCDE-FGHJK" in lines["ttyS0"].read()
    console.refresh()
    assert "ABCDE-FGHJK" in lines["tty1"].read()
    assert lines["ttyS0"].read() == ""
    console.close()


def test_a_stage_after_the_status_clears_the_screen_once(
    tmp_path: Path, lines: dict[str, Line]
) -> None:
    console = Terminals.open(("tty1",), dev=tmp_path)
    console.show(view())
    lines["tty1"].read()
    console.stage("shutting down")
    console.stage("guests ended")
    assert lines["tty1"].read().count("\x1b[2J") == 1
    console.close()


def test_a_terminal_that_breaks_is_dropped(tmp_path: Path) -> None:
    line = Line(tmp_path, "ttyS0")
    terminal = Terminal("ttyS0", tmp_path)
    line.close()
    terminal.write("x")
    assert not terminal.works
    terminal.write("y")
    terminal.close()


def test_a_full_terminal_blocks_nobody(tmp_path: Path, lines: dict[str, Line]) -> None:
    terminal = Terminal("ttyS0", tmp_path)
    for _ in range(2000):
        terminal.write("x" * 100)
    assert len(lines["ttyS0"].read()) > 1000
    terminal.close()
