"""What an ordinary process sees of the machine's processors while a test measures waiting times.

It sleeps a little and works a little, again and again, in a session of its own, and notes how much
longer that took than on an idle processor. What it lost between two instants is what any other
process lost to the machine in that time, whoever's guests or tests kept it busy.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType

__all__ = ["ControlProcess"]

SLEEP_S, WORK_S = 0.01, 0.005
"""As a chain of processes that serves requests: it waits to be woken and works longer than what the
kernel gives a process at a time, so that it sees both kinds of delay."""
_LAST_TURN_S = 0.5
"""Until the last turn has been told."""
MARGIN_S = 0.005
"""What a sleep may take too long on an idle machine."""


class ControlProcess:
    """The process, for the time of a context."""

    def __init__(self) -> None:
        self._turns: deque[tuple[float, float, float]] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> ControlProcess:
        """Start it, and wait for its first turn."""
        from tests.framework.ending import started  # the process itself has only this file

        self._process = started(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(10)
        self._reader.join(10)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            began, ended, lost = map(float, line.split())
            self.note(began, ended, lost)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def note(self, began: float, ended: float, lost_s: float) -> None:
        """A turn, and what was lost in it."""
        with self._lock:
            self._turns.append((began, ended, lost_s))

    def own_s(self, spans: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
        """How long each span of time was, and how long without what this process lost in it."""
        time.sleep(_LAST_TURN_S)
        spans = list(spans)
        took = [until - since for since, until in spans]
        lost = [self.lost_s(since, until) for since, until in spans]
        return took, [max(0.0, all_s - away) for all_s, away in zip(took, lost, strict=True)]

    def lost_s(self, since: float, until: float) -> float:
        """The time that it lost between two instants of time.monotonic(); a turn that goes beyond
        counts by its part."""
        with self._lock:
            turns = list(self._turns)
        total = 0.0
        for began, ended, lost in turns:
            common = min(ended, until) - max(began, since)
            if common > 0:
                total += min(lost, common)
        return total


def _main() -> None:
    """Take turns for ever; one line for each that took too long, and for the first."""
    first, ended = True, time.monotonic()
    while True:
        began = ended  # what telling of the last turn took too long counts as well
        time.sleep(SLEEP_S)
        until = time.thread_time() + WORK_S
        while time.thread_time() < until:
            pass
        ended = time.monotonic()
        lost = ended - began - SLEEP_S - WORK_S
        if first or lost > MARGIN_S:
            print(began, ended, max(0.0, lost), flush=True)
            first = False


if __name__ == "__main__":
    _main()
