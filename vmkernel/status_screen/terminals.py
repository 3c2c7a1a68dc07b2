"""The terminals together: the progress of the boot line by line, then the status, drawn when it
changes.

    stage*  ->  show (first)  ->  show (changed)*  ->  stage* (shutdown)

On a screen the status replaces the progress; on a serial line it follows it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

from vmkernel.host.sysfs import DEV, SYS
from vmkernel.host.terminal import Terminal, console_names
from vmkernel.status_screen.view import StatusView, screen_lines, serial_lines

__all__ = ["Terminals"]

_log = logging.getLogger(__name__)

_HIDE_CURSOR = "\x1b[?25l"
_CLEAR = "\x1b[0m\x1b[H\x1b[2J"
_HOME = "\x1b[0m\x1b[H"
_TO_LINE_END = "\x1b[K"
_TO_SCREEN_END = "\x1b[J"
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


class Terminals:
    """Writes to the terminals; never waits, fails or reads."""

    def __init__(self, terminals: Sequence[Terminal] = ()) -> None:
        self._terminals = list(terminals)
        self._shown: StatusView | None = None
        self._told_s = -math.inf

    def told_within(self, seconds: float) -> bool:
        """True if a line of progress has replaced the status, and is not older than this."""
        return self._shown is None and time.monotonic() - self._told_s < seconds

    @classmethod
    def open(
        cls, names: Sequence[str] | None = None, *, sys: Path = SYS, dev: Path = DEV
    ) -> Terminals:
        """Open the terminals named, or those of the kernel's `console=`; one that can't be opened
        is left out."""
        terminals = []
        for name in console_names(sys) if names is None else names:
            with contextlib.suppress(OSError):
                terminals.append(Terminal(name, dev))
        return cls(terminals)

    def stage(self, text: str) -> None:
        """A line of the story of the start or the end, at once, with the time since power-on."""
        _log.info("%s", text)
        self._told_s = time.monotonic()
        line = f"mica: {text} ({time.clock_gettime(time.CLOCK_BOOTTIME):.1f} s)\n"
        for terminal in self._terminals:
            if terminal.is_screen and self._shown is not None:
                terminal.write(_CLEAR)
            terminal.write(line)
        self._shown = None

    def show(self, view: StatusView) -> bool:
        """Draw the status if it differs from what is shown; True if it was drawn."""
        if view == self._shown:
            return False
        first = self._shown is None
        self._shown = view
        for terminal in self._terminals:
            if terminal.is_screen:
                terminal.write(_screen_text(view, terminal.size, clear=first))
            else:
                terminal.write("\n" + "\n".join(serial_lines(view)) + "\n")
        return True

    def refresh(self) -> None:
        """Draw the screens again, for something else wrote on them."""
        if self._shown is not None:
            for terminal in self._terminals:
                if terminal.is_screen:
                    terminal.write(_screen_text(self._shown, terminal.size, clear=True))

    def close(self) -> None:
        """Close the terminals; their text stays."""
        for terminal in self._terminals:
            terminal.close()
        self._terminals.clear()


def _screen_text(view: StatusView, size: tuple[int, int], *, clear: bool) -> str:
    lines = screen_lines(view, *size)
    title = lines.index(next(line for line in lines if line))
    lines[title] = _BOLD + lines[title] + _PLAIN
    body = "\n".join(line + _TO_LINE_END for line in lines)
    return _HIDE_CURSOR + (_CLEAR if clear else _HOME) + body + _TO_SCREEN_END
