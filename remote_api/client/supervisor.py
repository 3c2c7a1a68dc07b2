"""Keeps the processes of hosted mode running: starts, restarts after a crash, ends in order.

stopped -> running -> (crash) -> waiting 0.2 … 5 s -> running -> … -> ended
The wait doubles while a process keeps crashing, and begins anew once it has run for STEADY_S.
A process that never came up ends the whole, with the end of its log.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remote_api.client.errors import ClientError

__all__ = ["Child", "ChildFailedError", "Supervisor"]

STEADY_S = 30.0
_FIRST_WAIT_S = 0.2
_LAST_WAIT_S = 5.0
_HOPELESS = 5
_LOG_TAIL_LINES = 12
_PR_SET_PDEATHSIG = 1


class ChildFailedError(ClientError):
    """A process can't be started, or crashes again and again before it ever worked."""


@dataclass(kw_only=True)
class Child:
    """One process that is kept running."""

    name: str
    argv: Sequence[str]
    log: Path
    stop_s: float
    """How long it may take to end."""
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    crashes: int = 0
    """Since it last ran for a while."""
    due: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Start it. Raises ChildFailedError."""
        self.started = time.monotonic()
        self.starts += 1
        try:
            with self.log.open("ab") as log:
                # Its own session: Ctrl-C is for us, and we end it in order.
                self.process = subprocess.Popen(
                    list(self.argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_end_with_parent(),
                )
        except OSError as error:
            raise ChildFailedError(f"{self.name} can't be started: {error}") from error

    def tail(self) -> str:
        """The end of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_LOG_TAIL_LINES:])


class Supervisor:
    """Keeps children running; the last one is ended first."""

    def __init__(self, children: Sequence[Child], report: Callable[[str], None]) -> None:
        self._children = tuple(children)
        self._report = report
        self.proven = False
        """Set once everything has worked: from then on a crash is always mended."""

    def start(self) -> None:
        """Start all."""
        for child in self._children:
            child.start()

    def tend(self) -> None:
        """Look after all once: notice crashes, start again what is due."""
        now = time.monotonic()
        for child in self._children:
            if child.process is None:
                if now >= child.due:
                    child.start()
                continue
            status = child.process.poll()
            if status is None:
                if now - child.started > STEADY_S:
                    child.crashes = 0
                continue
            self._crashed(child, status, now)

    def stop(self) -> None:
        """End all, the last one first; what does not end in time is killed."""
        for child in reversed(self._children):
            process, child.process = child.process, None
            if process is None or process.poll() is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(child.stop_s)
            except subprocess.TimeoutExpired:
                self._report(f"{child.name} did not end within {child.stop_s:g} s; it is killed")
                process.kill()
                process.wait()

    def _crashed(self, child: Child, status: int, now: float) -> None:
        child.process = None
        child.crashes += 1
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if not self.proven and child.crashes >= _HOPELESS:
            raise ChildFailedError(
                f"{child.name} ended {child.crashes} times ({how}); its log ends:\n{child.tail()}"
            )
        wait_s = min(_FIRST_WAIT_S * 2 ** (child.crashes - 1), _LAST_WAIT_S)
        child.due = now + wait_s
        self._report(f"{child.name} ended with {how}; it is started again in {wait_s:g} s")


def _end_with_parent() -> Callable[[], None]:
    """What a child does first: ask the kernel to end it in order when its parent dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask
