"""The one place where a program is started and waited for.

No shell, stdin closed, a fixed environment, a time-out on every run, bounded output. A program that
fails, hangs or floods is killed with its whole process group and reported so that it can be run
again by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkernel.host.cgroup import Cgroup
from vmkernel.host.errors import CommandError
from vmkernel.model import ErrorCode
from vmkernel.text import clean

__all__ = ["Completed", "FIXED_ENVIRONMENT", "Runner"]

_log = logging.getLogger(__name__)

FIXED_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}
_CHUNK_BYTES = 1 << 16
_SHOWN_BYTES = 4096
"""The length shown of a failed program's output."""
_HANDED_MAX_BYTES = 64 << 20
"""The output that is passed on in pieces is progress: lines of some 40 bytes, four per second."""
_KILL_GRACE_S = 2.0


@dataclass(frozen=True)
class Completed:
    """A program that ended in an expected way."""

    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Runner:
    """Runs programs; `programs` maps a tool's name to another path (hosted mode, tests)."""

    programs: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(FIXED_ENVIRONMENT))

    async def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout_s: float,
        silence_s: float | None = None,
        ok: tuple[int, ...] = (0,),
        input_data: bytes | None = None,
        max_output_bytes: int = 1 << 20,
        on_stdout: Callable[[bytes], None] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
        user: int | None = None,
        name: str | None = None,
        cgroup: Cgroup | None = None,
    ) -> Completed:
        """Run `argv` to its end; raise CommandError unless it exits with a code in `ok`.

        With `on_stdout`, stdout is handed over piece by piece and not kept. With `silence_s`, a
        program that writes nothing to stdout for so long is killed. With `user`, the program runs
        as that uid and gid with no further groups, and with `cgroup` it is moved there. `name` is
        its name in messages. If the caller is cancelled, the program is killed first.
        """
        words = [str(word) for word in argv]
        name = name or words[0]
        program = str(self.programs.get(words[0], words[0]))
        replay = shlex.join([program, *words[1:]])
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *words[1:],
                stdin=asyncio.subprocess.DEVNULL if input_data is None else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(self.environment),
                cwd=cwd or Path("/"),
                pass_fds=tuple(pass_fds),
                start_new_session=True,
                umask=0o077,
                user=user,
                group=user,
                extra_groups=None if user is None else (),
            )
        except OSError as error:
            raise CommandError(
                f"{name} can't be started: {error.strerror}.",
                replay=replay,
                returncode=None,
                output="",
            ) from error
        _move(process.pid, cgroup)
        try:
            async with asyncio.timeout(timeout_s):
                completed = await _collect(
                    process, input_data, max_output_bytes, on_stdout, silence_s
                )
        except TimeoutError as error:
            await _kill(process)
            raise CommandError(
                f"{name} did not end within {timeout_s:g} s and was killed.",
                replay=replay,
                returncode=None,
                output="",
                code=ErrorCode.TIMED_OUT,
            ) from error
        except _SilentError as error:
            await _kill(process)
            raise CommandError(
                f"{name} made no progress for {silence_s:g} s and was killed.",
                replay=replay,
                returncode=None,
                output="",
                code=ErrorCode.TIMED_OUT,
            ) from error
        except _TooMuchOutputError as error:
            await _kill(process)
            raise CommandError(
                f"{name} wrote more than {error.limit_bytes} bytes and was killed.",
                replay=replay,
                returncode=None,
                output="",
            ) from error
        except BaseException:
            await asyncio.shield(_kill(process))
            raise
        if completed.returncode not in ok:
            raise _failure(name, replay, completed)
        return completed


def _move(pid: int, cgroup: Cgroup | None) -> None:
    """Done microseconds after the start: memory used until then is only the interpreter's."""
    if cgroup is None:
        return
    try:
        cgroup.add(pid)
    except ProcessLookupError:
        return
    except OSError as error:
        _log.error("a program stays in the vmkernel's own group of processes: %s", error)


class _TooMuchOutputError(Exception):
    """The program exceeded its output limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self.limit_bytes = limit_bytes


class _SilentError(Exception):
    """The program wrote nothing for too long."""


async def _collect(
    process: asyncio.subprocess.Process,
    input_data: bytes | None,
    limit: int,
    on_stdout: Callable[[bytes], None] | None,
    silence_s: float | None,
) -> Completed:
    assert process.stdout is not None
    assert process.stderr is not None
    # No TaskGroup: before Python 3.13 its way to end its parent's wait may outlive it, and cancel
    # whatever the parent awaits next.
    out = asyncio.create_task(_read(process.stdout, limit, on_stdout, silence_s))
    err = asyncio.create_task(_read(process.stderr, limit, None))
    tasks: list[asyncio.Task[Any]] = [out, err]
    if input_data is not None:
        tasks.append(asyncio.create_task(_feed(process, input_data)))
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Completed(await process.wait(), out.result(), err.result())


async def _read(
    stream: asyncio.StreamReader,
    limit: int,
    sink: Callable[[bytes], None] | None,
    silence_s: float | None = None,
) -> bytes:
    kept, handed = bytearray(), 0
    while True:
        try:
            async with asyncio.timeout(silence_s):
                data = await stream.read(_CHUNK_BYTES)
        except TimeoutError as error:
            raise _SilentError from error
        if not data:
            break
        if sink is not None:
            handed += len(data)
            if handed > _HANDED_MAX_BYTES:
                raise _TooMuchOutputError(_HANDED_MAX_BYTES)
            sink(data)
            continue
        kept += data
        if len(kept) > limit:
            raise _TooMuchOutputError(limit)
    return bytes(kept)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the program's whole process group and wait until it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_GRACE_S):
                await asyncio.gather(process.wait(), *map(_read_away, _pipes(process)))
                return


def _pipes(process: asyncio.subprocess.Process) -> list[asyncio.StreamReader]:
    return [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]


async def _read_away(pipe: asyncio.StreamReader) -> None:
    """Read a pipe to its end: asyncio considers a program ended only when its pipes are closed."""
    while await pipe.read(_CHUNK_BYTES):
        pass


def _failure(name: str, replay: str, completed: Completed) -> CommandError:
    tail = (completed.stderr or completed.stdout)[-_SHOWN_BYTES:].decode(errors="replace").strip()
    last = clean(tail.splitlines()[-1]) if tail else "no message"
    how = (
        f"was ended by signal {-completed.returncode}"
        if completed.returncode < 0
        else f"failed with code {completed.returncode}"
    )
    _log.info("command failed (%d): %s: %s", completed.returncode, replay, last)
    code = (
        ErrorCode.INSUFFICIENT_SPACE if "No space left on device" in tail else ErrorCode.UNAVAILABLE
    )
    return CommandError(
        f"{name} {how}: {last.rstrip('.')}.",
        replay=replay,
        returncode=completed.returncode,
        output=tail,
        code=code,
    )
