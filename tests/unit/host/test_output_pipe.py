"""What QEMU says: its last lines are known, and it can't fill anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from vmkernel.host.detached import start_detached
from vmkernel.host.output_pipe import TAIL_BYTES, OutputPipe
from vmkernel.vm.launch.logs import RunLogs


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60.0):
            await story()

    asyncio.run(whole())


def _used_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def test_the_last_lines_are_kept_and_nothing_grows(tmp_path: Path) -> None:
    async def story() -> None:
        logs, path = RunLogs(), tmp_path / "qemu.log"
        with logs.begin(path) as fd:
            assert logs.last_lines(path) == ""
            sent = 0
            ends = time.monotonic() + 2.0
            while time.monotonic() < ends:
                with contextlib.suppress(BlockingIOError):
                    sent += os.write(fd, b"junk from a guest\n" * 1_000)
                await asyncio.sleep(0)
            await asyncio.sleep(0.6)
            os.write(fd, b"\n\x1b]0;title\x07the reason\n")
        assert sent > 128 << 10
        assert logs.last_lines(path, 1) == "]0;titlethe reason"
        logs.end(path)
        assert _used_bytes(tmp_path) <= 2 * TAIL_BYTES
        assert logs.last_lines(path, 2).endswith(" / ]0;titlethe reason"), "from the file"
        logs.close()

    run(story)


def test_what_was_said_is_known_to_a_later_process(tmp_path: Path) -> None:
    async def story() -> None:
        before, path = RunLogs(), tmp_path / "qemu.log"
        with before.begin(path) as fd:
            os.write(fd, b"one\n")
            before.last_lines(path)
            os.write(fd, b"two\n")
            before.close()
            os.write(fd, b"three\n")  # while nobody reads: the writer itself holds the pipe
            after = RunLogs()
            after.follow(path)
            assert after.last_lines(path) == "one / two / three"
            after.close()
            logs = RunLogs()
            with logs.begin(path):
                assert logs.last_lines(path) == "", "a new start begins anew"
            logs.close()

    run(story)


def test_nothing_but_a_pipe_is_read(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "qemu.log"
        assert RunLogs().last_lines(path) == ""
        path.write_text("a file of an earlier version")
        assert OutputPipe.find(path) is None
        path.unlink()
        os.mkfifo(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
        assert OutputPipe.find(path) is None
        assert RunLogs().last_lines(path) == ""

    run(story)


@pytest.mark.parametrize("quiet_s", [0.0, 0.5])
def test_a_program_outlives_us_and_writes_on(tmp_path: Path, quiet_s: float) -> None:
    async def story() -> None:
        logs, path = RunLogs(), tmp_path / "qemu.log"
        script = f"import time; print('begun', flush=True); time.sleep({quiet_s + 0.3});"
        script += "print('x' * 200000 + chr(10), end='', flush=True)" if not quiet_s else "1/0"
        with logs.begin(path) as fd:
            child = start_detached(
                ["/usr/bin/env", "python3", "-c", script],
                lock=tmp_path / "lock",
                log=fd,
                pass_fds=(),
            )
        while "begun" not in logs.last_lines(path):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        logs.close()
        assert await child.wait(30.0)
        child.close()

    run(story)
