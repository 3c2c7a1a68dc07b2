"""The messages of a worker to its parent: JSON lines on stdout.

{"done": BYTES, "total": BYTES}*     then   {"ok": {…}}  or  {"error": CODE, "detail": SENTENCE}
CODE is a `vmkernel.model.ErrorCode`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from vmkernel.workers.confine import Policy, confine

__all__ = ["Refusal", "Report", "run", "say"]

_REPORT_S = 0.25


class Refusal(Exception):  # noqa: N818 - it is told, not raised further
    """The work can't be done: a code and a sentence for the user."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Report:
    """Reports the progress a few times a second."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def progress(self, done: int, total: int) -> None:
        """So far; cheap enough to call often."""
        if time.monotonic() - self._last_s >= _REPORT_S:
            self._last_s = time.monotonic()
            say({"done": done, "total": total})


def say(message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def run(work: Callable[[dict[str, Any]], dict[str, Any]], argv: list[str]) -> int:
    """Confine this process, do the work, report the result. 0 if it was reported."""
    given = json.loads(argv[0])
    policy = Policy(**{**given, "read": tuple(given["read"]), "write": tuple(given["write"])})
    job = json.loads(argv[1])
    try:
        confine(policy)
        say({"ok": work(job)})
    except Refusal as refusal:
        say({"error": refusal.code, "detail": str(refusal)})
    except MemoryError:
        say({"error": "invalid", "detail": "It needs more memory than is allowed for this."})
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        code = "insufficient-space" if full else "unavailable"
        reason = "no space is left" if full else error.strerror or error
        say({"error": code, "detail": f"It failed: {reason}."})
    except BrokenPipeError:
        return 1
    sys.stdout.flush()
    return 0
