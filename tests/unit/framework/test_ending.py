"""A process that tests started does not outlive them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.framework.repository import REPOSITORY

TESTS = """
import sys, time
from tests.framework.ending import started
child = started([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_what_tests_started_ends_when_they_are_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TESTS], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        os.kill(pid, 0)
        tests.kill()
    end = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < end, f"{pid} runs on"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
