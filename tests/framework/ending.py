"""Processes that tests start end with the tests, also when these are killed."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ends_with_us", "started"]

_PR_SET_PDEATHSIG = 1


def ends_with_us(number: int = signal.SIGKILL) -> Callable[[], None]:
    """What a child does first (`preexec_fn`): ask the kernel for that signal when this process ends
    (prctl(2), PR_SET_PDEATHSIG; it outlives an exec)."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it ended before we asked

    return ask


def started(
    argv: Sequence[str | Path], *, ends_by: int = signal.SIGKILL, **options: Any
) -> subprocess.Popen[Any]:
    """A process as `subprocess.Popen` starts it, which gets the signal `ends_by` when this process
    ends, however that happens. Tests start processes that they don't wait for by this alone."""
    return subprocess.Popen(argv, preexec_fn=ends_with_us(ends_by), **options)
