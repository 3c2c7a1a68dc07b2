"""Starting programs: time, output, cancelling, and what a failure tells."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from vmkernel.host import CommandError, Completed, Runner
from vmkernel.model import ErrorCode

PYTHON = Runner({"python": Path(sys.executable)})


def _run(code: str, **options: object) -> Completed:
    fields = {"timeout_s": 20.0, **options}
    return asyncio.run(PYTHON.run(["python", "-c", code], **fields))  # type: ignore[arg-type]


def _failed(code: str, **options: object) -> CommandError:
    with pytest.raises(CommandError) as caught:
        _run(code, **options)
    return caught.value


def test_output_and_code_come_back() -> None:
    done = _run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", ok=(0, 3))
    assert done == Completed(3, b"out\n", b"err\n")


def test_the_environment_is_fixed_and_stdin_is_closed() -> None:
    os.environ["LEAKED"] = "x"
    done = _run("import os, sys; print(sorted(os.environ), sys.stdin.read(), os.getcwd())")
    assert b"LEAKED" not in done.stdout
    assert b"LC_ALL" in done.stdout
    assert done.stdout.endswith(b"  /\n")


def test_input_is_given() -> None:
    data = os.urandom(300_000)
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    assert _run(code, input_data=data).stdout == data
    assert _run("", input_data=data).stdout == b""


def test_a_failure_can_be_replayed_by_hand() -> None:
    error = _failed("import sys; sys.exit('a \"quoted\" reason')")
    assert error.returncode == 1
    assert str(error) == 'python failed with code 1: a "quoted" reason.'
    assert error.replay.startswith(sys.executable)
    assert """'import sys; sys.exit('"'"'a""" in error.replay


def test_a_full_disk_is_told_as_such() -> None:
    error = _failed("import sys; sys.exit('x: No space left on device')")
    assert error.problem.code is ErrorCode.INSUFFICIENT_SPACE


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(CommandError, match="can't be started"):
        asyncio.run(Runner().run(["no-such-program"], timeout_s=1))


def test_time_and_output_are_bounded_and_children_go_too(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        "import os, time\n"
        f"if os.fork() == 0:\n    time.sleep(1.5)\n    open({str(mark)!r}, 'w')\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    error = _failed(code, timeout_s=0.5)
    assert error.problem.code is ErrorCode.TIMED_OUT
    assert time.monotonic() - began < 5
    flood = _failed("while True: print('x' * 1000)", max_output_bytes=100_000)
    assert "100000 bytes" in str(flood)
    time.sleep(1.5)
    assert not mark.exists()


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f" open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    error = _failed(code, timeout_s=2)
    assert error.problem.code is ErrorCode.TIMED_OUT
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_cancelling_kills_the_program_first(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    async def scenario() -> None:
        task = asyncio.create_task(PYTHON.run(["python", "-c", code], timeout_s=60))
        while not mark.exists() or not mark.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.read_text()), 0)

    asyncio.run(scenario())


def test_output_is_handed_over_piece_by_piece() -> None:
    seen = bytearray()
    done = _run("print('x' * 500_000)", on_stdout=seen.extend, max_output_bytes=10)
    assert (len(seen), done.stdout) == (500_001, b"")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_program_can_run_as_another_user() -> None:
    done = asyncio.run(Runner().run(["id"], timeout_s=20, user=701))
    assert done.stdout == b"uid=701 gid=701 groups=701\n"
