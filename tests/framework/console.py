"""A serial line: read all the time, kept with the time of each line.

A thread reads, so that the machine never waits for us and every line has its own time, also
while a test talks to the API; that is why this is not pexpect. Everything that waits for the
machine calls `check()`, which raises at once when the line has shown that all is lost.

The line of the test machine is a socket; that of a guest inside comes by the API's WebSocket.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = [
    "Console",
    "ConsoleError",
    "ConsoleTimeoutError",
    "KnownBadError",
    "Line",
    "SocketWire",
    "Wire",
]

KNOWN_BAD = tuple(
    re.compile(pattern)
    for pattern in (
        r"Kernel panic - not syncing",
        r"\bOops: \d{4}",
        r"\bBUG: (?!using smp_processor_id)",
        r"general protection fault",
        r"Traceback \(most recent call last\)",
        r"\[FAILED\]",
        r"Failed to start ",
        r"You are in emergency mode",
        r"Entering emergency mode",
        r"Unable to mount root",
        r"!!!! X64 Exception Type",
        r"error: symbol .* not found",
    )
)
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][0-9A-B]|[=>cNODMEH78])")
TAIL_LINES = 60


class ConsoleError(AssertionError):
    """The machine's console did not show what was waited for; the message ends in its tail.

    ConsoleTimeoutError   what was waited for did not come in time
    KnownBadError         a line says that all is lost
    """


class ConsoleTimeoutError(ConsoleError):
    """What was waited for did not come in time."""


class KnownBadError(ConsoleError):
    """A line says that all is lost."""


@dataclass(frozen=True)
class Line:
    """A line of the console without escape sequences."""

    time_s: float
    """When it was whole, by time.monotonic(); of an unfinished line, when it began."""
    text: str


class Wire(Protocol):
    """The source of a console's data."""

    def receive(self) -> bytes:
        """The next bytes; nothing at the end."""

    def send(self, data: bytes) -> None:
        """Send bytes."""

    def close(self) -> None:
        """End it; a `receive` that waits returns."""


class SocketWire:
    """A connected stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def receive(self) -> bytes:
        """The next bytes; nothing at the end."""
        try:
            return self._socket.recv(1 << 16)
        except OSError:
            return b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        """Shut it down in both directions, so that the reader's thread ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class Console:
    """Reads a wire until it closes.

    `watch` is called by everything that waits, and raises if waiting is of no use. `story` is
    added to the message of a wait that ran out.
    """

    def __init__(
        self,
        wire: Wire,
        log: Path,
        *,
        tolerate: tuple[str, ...] = (),
        watch: Callable[[], None] | None = None,
        story: Callable[[], str] | None = None,
    ) -> None:
        self._wire = wire
        self._watch = watch
        self._story = story
        self._log = log.open("ab")
        self._tolerate = tuple(re.compile(pattern) for pattern in tolerate)
        self._changed = threading.Condition()
        self._lines: list[Line] = []
        self._partial = ""
        self._partial_since = 0.0
        self._bad: str | None = None
        self.closed = False
        self._thread = threading.Thread(target=self._read, name="console", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._wire.close()
        self._thread.join(timeout=5)
        self._log.close()

    def send(self, text: str) -> None:
        """Type on the serial line."""
        self._wire.send(text.encode())

    def count(self) -> int:
        """How many whole lines have come; what `expect` takes as `after`."""
        with self._changed:
            return len(self._lines)

    def news(self, *, timeout_s: float = 60.0) -> int:
        """The line from which on everything is new, for `expect`: the guest echoes a mark.

        A guest's console begins with its earlier output.
        """
        mark = f"echo {secrets.token_hex(4)}"
        self.send(mark + "\n")
        self.expect(f"^{mark}$", timeout_s=timeout_s, what="the guest echoes")
        with self._changed:
            return next(n for n, line in enumerate(self._lines) if line.text == mark) + 1

    def ask(self, command: str, *, timeout_s: float) -> str:
        """Send a line, and return the line that answers it: the next that starts as it does."""
        position = self.news(timeout_s=timeout_s)
        self.send(command + "\n")
        name = command.split()[0]
        match, _ = self.expect(
            rf"^{re.escape(name)}\b ?(.*)", timeout_s=timeout_s, what=command, after=position
        )
        return match.group(1)

    def lines(self) -> list[Line]:
        """All lines so far; the last may be unfinished."""
        with self._changed:
            return self._all()

    def text(self) -> str:
        """All that came so far, without escape sequences."""
        return "\n".join(line.text for line in self.lines())

    def tail(self) -> str:
        """The last lines, for a message."""
        lines = self.text().splitlines()[-TAIL_LINES:]
        return "\n".join(["--- the end of the console ---", *lines, "---"])

    def check(self) -> None:
        """Raise if waiting is of no use: by `watch`, or because of a line known to be bad."""
        if self._watch is not None:
            self._watch()
        self.check_lines()

    def check_lines(self) -> None:
        """Raise if a line was known to be bad."""
        with self._changed:
            bad = self._bad
        if bad is not None:
            raise KnownBadError(f"the console says: {bad}\n{self.tail()}")

    def expect(
        self,
        pattern: str,
        *,
        timeout_s: float,
        what: str,
        after: int = 0,
        partial: bool = False,
    ) -> tuple[re.Match[str], Line]:
        """Wait for a line that matches, at or after line number `after`; the match and the line.

        A line is looked at when it is whole; with `partial`, also before (a dialog, a prompt).
        """
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        position = after
        while True:
            self.check()
            with self._changed:
                lines = self._all() if partial else self._lines
                for line in lines[position:]:
                    if match := wanted.search(line.text):
                        return match, line
                position = max(after, len(self._lines))
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self.closed:
                    break
                self._changed.wait(min(remaining, 1.0))
        if self.closed:
            time.sleep(0.5)  # until what closed it shows
            self.check()
        why = "the console closed" if self.closed else f"not seen within {timeout_s:g} s"
        story = f"\n{self._story()}" if self._story is not None else ""
        raise ConsoleTimeoutError(f"{what} (/{pattern}/): {why}\n{self.tail()}{story}")

    def _all(self) -> list[Line]:
        if not self._partial:
            return list(self._lines)
        return [*self._lines, Line(self._partial_since, ESCAPES.sub("", self._partial))]

    def _read(self) -> None:
        while data := self._wire.receive():
            self._log.write(data)
            self._log.flush()
            self._take(data.decode("utf-8", "replace"))
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _take(self, text: str) -> None:
        now = time.monotonic()
        with self._changed:
            if not self._partial:
                self._partial_since = now
            *whole, rest = re.split(r"\r*\n", self._partial + text)
            for raw in whole:
                self._add(Line(now, ESCAPES.sub("", raw).rstrip("\r")))
            if whole:
                self._partial_since = now
            self._partial = rest
            self._changed.notify_all()

    def _add(self, line: Line) -> None:
        self._lines.append(line)
        tolerated = any(fine.search(line.text) for fine in self._tolerate)
        bad = any(pattern.search(line.text) for pattern in KNOWN_BAD)
        if self._bad is None and bad and not tolerated:
            self._bad = line.text
