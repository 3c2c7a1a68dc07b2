"""Keeps the processes of hosted mode running: starts, restarts after a crash, ends in order.

stopped -> starting -> ready -> (crash) -> waiting 0.2 … 5 s -> starting -> … -> ended
              |
              +-> failed: the process ended before it was ready; that is final

The wait doubles while a process keeps crashing, and starts over once it has run for STEADY_S.
Processes report their state by the service manager's protocol (sd_notify(3)), on a socket in a
folder that is its user's alone: `READY=1`, `STATUS=` and, of ours, the `X_MICA_…` fields.

Whatever a process prints goes into its log. The log is checked whenever the process is: once it has
LOG_MAX_BYTES, its newest half becomes `.log.1` in place of the one before, and it starts empty.
What is printed at that very moment may be lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remote_api.client.errors import ClientError

__all__ = ["Child", "ChildFailedError", "LOG_MAX_BYTES", "Supervisor"]

STEADY_S = 30.0
LOG_MAX_BYTES = 4 << 20
"""Days of ordinary work; with `.log.1`, two processes keep 13 MiB."""
_LATE_BYTES = 512 << 10
"""What a process can print while the newest half of its log is copied."""
_FIRST_WAIT_S = 0.2
_LAST_WAIT_S = 5.0
_POLL_S = 0.05
_LOG_TAIL_LINES = 12
_NOTICE_BYTES = 4096
_REFUSED = "X_MICA_REFUSED"
_PR_SET_PDEATHSIG = 1


class ChildFailedError(ClientError):
    """A process can't be started, or ended before it was ready."""


@dataclass(kw_only=True)
class Child:
    """One process that is kept running."""

    name: str
    argv: Sequence[str]
    log: Path
    stop_s: float
    """How long it may take to end."""
    environment: dict[str, str] = field(default_factory=dict)
    pass_fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    told: dict[str, str] = field(default_factory=dict)
    """What it has reported since its start, by name."""
    crashes: int = 0
    """Since it last ran for a while."""
    due: float = 0.0
    started: float = field(default_factory=time.monotonic)
    _notices: socket.socket | None = None

    @property
    def ready(self) -> bool:
        """True once it has reported that it serves."""
        return self.told.get("READY") == "1"

    def start(self) -> None:
        """Start it. Raises ChildFailedError."""
        self.started = time.monotonic()
        self.told = {}
        notices = self._listen()
        try:
            with self.log.open("ab") as log:
                # Its own session: Ctrl-C is for us, and we end it in order.
                self.process = subprocess.Popen(
                    list(self.argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.environment, "NOTIFY_SOCKET": str(notices)},
                    pass_fds=self.pass_fds,
                    start_new_session=True,
                    preexec_fn=_end_with_parent(),
                )
        except OSError as error:
            raise ChildFailedError(f"can't start {self.name}: {error}") from error

    def listen(self) -> None:
        """Read what it has reported."""
        while self._notices is not None:
            try:
                notice = self._notices.recv(_NOTICE_BYTES).decode(errors="replace")
            except BlockingIOError:
                return
            for line in notice.splitlines():
                name, _, value = line.partition("=")
                self.told[name] = value

    def tail(self) -> str:
        """The end of its log, which may just have been emptied."""
        lines: list[str] = []
        for log in (self._older_log, self.log):
            with contextlib.suppress(OSError):
                lines += log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    @property
    def _older_log(self) -> Path:
        return self.log.with_name(f"{self.log.name}.1")

    def bound_log(self) -> None:
        """Rotate the log if it is full."""
        with contextlib.suppress(FileNotFoundError), self.log.open("r+b") as log:
            size = os.fstat(log.fileno()).st_size
            if size < LOG_MAX_BYTES:
                return
            log.seek(-LOG_MAX_BYTES // 2, os.SEEK_END)
            log.readline()
            kept = log.read(LOG_MAX_BYTES // 2)
            try:
                with self._older_log.open("wb", buffering=0) as older:
                    older.write(kept)
                    # What it has printed meanwhile, which on a busy machine may be its last words.
                    older.write(log.read(_LATE_BYTES))
            finally:
                # A full disk is the more reason to do so. The process appends: it goes on at 0.
                log.truncate(0)

    def failure(self, status: int) -> str:
        """Why it ended, in a sentence if it gave one."""
        if reason := self.told.get(_REFUSED):
            return reason
        return f"{self.name} {_how(status)} before it was ready; the end of its log:\n{self.tail()}"

    def close(self) -> None:
        """Hear no more of it."""
        if self._notices is not None:
            Path(self._notices.getsockname()).unlink(missing_ok=True)
            self._notices.close()
            self._notices = None

    def _listen(self) -> Path:
        """A fresh socket for each start, so that nothing of an earlier process counts."""
        path = self.log.with_name(f"{self.name}.say")
        self.close()
        path.unlink(missing_ok=True)
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notices.bind(str(path))
        return path


class Supervisor:
    """Keeps children running; they are ended in the order in which they are given."""

    def __init__(self, children: Sequence[Child], report: Callable[[str], None]) -> None:
        self._children = tuple(children)
        self._report = report
        self._proven = False
        """Set once everything has worked: from then on a crash is always mended."""

    def start(self, timeout_s: float) -> None:
        """Start all, and return once all serve. Raises ChildFailedError."""
        for child in self._children:
            child.start()
        end = time.monotonic() + timeout_s
        while not all(child.ready for child in self._children):
            self.tend()
            if time.monotonic() > end:
                slow = next(child for child in self._children if not child.ready)
                raise ChildFailedError(
                    f"{slow.name} was not ready within {timeout_s:g} s; see its log {slow.log}"
                )
            time.sleep(_POLL_S)
        self._proven = True

    def tend(self) -> None:
        """Check all once: notice crashes, and restart what is due."""
        now = time.monotonic()
        for child in self._children:
            child.bound_log()
            if child.process is None:
                if now >= child.due:
                    child.start()
                continue
            status = child.process.poll()
            child.listen()
            if status is None:
                if now - child.started > STEADY_S:
                    child.crashes = 0
                continue
            self._crashed(child, status, now)

    def stop(self, asked_again: Callable[[], bool] = lambda: False) -> None:
        """End all, the first one first; what does not end in time is killed.

        What a process reports about its end is passed on. `asked_again` is True once the user asks
        to hurry: the process gets SIGTERM again, and decides what that means.
        """
        for child in self._children:
            process, child.process = child.process, None
            if process is not None and process.poll() is None:
                self._end(child, process, asked_again)
            child.close()

    def _end(
        self, child: Child, process: subprocess.Popen[bytes], asked_again: Callable[[], bool]
    ) -> None:
        process.send_signal(signal.SIGTERM)
        end = time.monotonic() + child.stop_s
        forced = False
        said = child.told.get("STATUS")
        while process.poll() is None:
            child.listen()
            child.bound_log()
            if (status := child.told.get("STATUS")) not in (said, "ending", None):
                self._report(str(status))
            said = child.told.get("STATUS")
            if asked_again() and not forced:
                forced = True
                process.send_signal(signal.SIGTERM)
            if time.monotonic() > end:
                self._report(f"{child.name} did not stop within {child.stop_s:g} s and is killed")
                process.kill()
                process.wait()
            time.sleep(_POLL_S)

    def _crashed(self, child: Child, status: int, now: float) -> None:
        child.process = None
        child.crashes += 1
        if not self._proven:
            raise ChildFailedError(child.failure(status))
        wait_s = min(_FIRST_WAIT_S * 2 ** (child.crashes - 1), _LAST_WAIT_S)
        child.due = now + wait_s
        why = child.told.get(_REFUSED)
        self._report(
            f"{child.name} {_how(status)}{f' ({why})' if why else ''}; restarting it in"
            f" {wait_s:g} s"
        )


def _how(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"


def _end_with_parent() -> Callable[[], None]:
    """Run first in a child: ask the kernel to end it in order when its parent dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask
