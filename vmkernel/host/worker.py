"""Starts `vmkernel.workers`: separate processes for data from outside.

Each runs as an unprivileged uid (in the appliance), under limits on memory, file size, system calls
and files that it sets for itself before it reads the data, and ends when this process does. One
without output for a while is killed.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

import vmkernel
from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.host.cgroup import Cgroup
from vmkernel.host.errors import HostError
from vmkernel.host.runner import FIXED_ENVIRONMENT, Runner
from vmkernel.host.seccomp import compile_filter
from vmkernel.host.work_places import WorkPlaces
from vmkernel.jail.calls import CallFilter
from vmkernel.jail.roles import FETCH_WORKER, TOOL, WORKER
from vmkernel.model import ErrorCode, MicaError
from vmkernel.text import clean

__all__ = ["Confinement", "Outcome", "WorkerReceipt", "Workers"]

_SILENCE_S = 120.0
_LINE_BYTES = 1 << 16
_LINES_MAX = 400_000
"""Four per second (workers/report.py) for the longest run."""
_ROOT = Path(vmkernel.__file__).parent.parent

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Confinement:
    """What a process for one piece of work may do; see `vmkernel.workers.confine.Policy`."""

    memory_bytes: int
    file_bytes: int | None = None
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    network: bool = False


@dataclass(frozen=True)
class Workers:
    """Where the workers' code is, and what all of them may read."""

    runner: Runner
    readable: tuple[str, ...] = ("/",)
    """In the appliance: only programs, libraries and settings."""
    allow_loopback: bool = False
    """Images may be fetched from this machine itself (hosted mode, if requested)."""
    pull_uid: int | None = None
    """The uid of workers that contact servers; None: our own."""
    cgroup: Cgroup | None = None
    """The cgroup of all workers, so that their memory is never counted as the vmkernel's."""
    places: WorkPlaces = field(default_factory=WorkPlaces)
    """For work on whole disks."""
    environment: Mapping[str, str] = field(
        default_factory=lambda: {
            **FIXED_ENVIRONMENT,
            "PYTHONPATH": str(_ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
    )

    def prefix(self, confinement: Confinement) -> list[str]:
        """The words before a program's own arguments that run it confined."""
        return [*self._python("vmkernel.workers.exec_confined"), self._policy(confinement, TOOL)]

    def program(self, name: str) -> str:
        """A tool's path, if it is not to be searched for."""
        return str(self.runner.programs.get(name, name))

    @property
    def confined_runner(self) -> Runner:
        """Runs commands that start with `prefix`."""
        return Runner(environment=self.environment)

    async def run(
        self,
        module: str,
        job: Mapping[str, Any],
        confinement: Confinement,
        *,
        fds: Sequence[int],
        user: int | None,
        on_progress: OnProgress,
        timeout_s: float = 24 * 3600.0,
    ) -> Outcome:
        """The result of a worker; MicaError with its refusal."""
        reader = _Lines(on_progress)
        calls = FETCH_WORKER if confinement.network else WORKER
        argv = [*self._python(f"vmkernel.workers.{module}"), self._policy(confinement, calls)]
        await self.confined_runner.run(
            [*argv, json.dumps(dict(job))],
            timeout_s=timeout_s,
            silence_s=_SILENCE_S,
            on_stdout=reader.feed,
            pass_fds=fds,
            user=user,
            cgroup=self.cgroup,
        )
        return reader.outcome(module)

    def _policy(self, confinement: Confinement, calls: CallFilter) -> str:
        return json.dumps(
            {
                "parent": os.getpid(),
                "memory_bytes": confinement.memory_bytes,
                "calls": _filter(calls),
                "file_bytes": confinement.file_bytes,
                "read": [*self.readable, *map(str, confinement.read)],
                "write": [str(path) for path in confinement.write],
                "network": confinement.network,
            }
        )

    @staticmethod
    def _python(module: str) -> list[str]:
        return [sys.executable, "-s", "-P", "-m", module]


Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class WorkerReceipt(msgspec.Struct, frozen=True):
    """What became of a message."""

    status: Annotated[int, msgspec.Meta(ge=100, le=999)] | None = None
    error: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    retry_after_s: Annotated[int, msgspec.Meta(ge=0, le=999_999_999)] | None = None


class Outcome(msgspec.Struct, frozen=True):
    """The result of a worker."""

    size_bytes: Count = 0
    url: Annotated[str, msgspec.Meta(max_length=16 << 10)] = ""
    """The final address of a fetched file."""
    missing: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=64)
    ] = ()
    """The numbers of the keys that a guest's firmware variables lack."""
    receipts: Annotated[tuple[WorkerReceipt, ...], msgspec.Meta(max_length=64)] = ()
    """What became of each message that was sent."""
    revoked: Count | None = None
    """The number of signatures that they revoke."""


class _Line(msgspec.Struct):
    """One line of vmkernel/workers/report.py."""

    done: Count | None = None
    total: Count = 0
    ok: Outcome | None = None
    error: ErrorCode | None = None
    detail: str = ""


@lru_cache(maxsize=8)
def _filter(calls: CallFilter) -> str:
    return base64.b64encode(compile_filter(calls)).decode()


class _Lines:
    """Collects a worker's JSON lines. A worker reads data from outside and may be compromised by
    it: its values are accepted only within ranges, and its lines are parsed at a bounded rate.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._rest = b""
        self._outcome: _Line | None = None
        self._count = 0

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._count += len(lines)
        if len(self._rest) > _LINE_BYTES or self._count > _LINES_MAX:
            raise HostError("A worker wrote too much output.")
        progress: _Line | None = None
        for line in lines:
            try:
                message = decode_json(line, _Line)
            except UndecodableError as error:
                raise HostError("A worker wrote invalid output.") from error
            if message.done is None:
                self._outcome = message
            else:
                progress = message
        if progress is not None and progress.done is not None:
            self._on_progress(progress.done, progress.total)

    def outcome(self, module: str) -> Outcome:
        """The final line; MicaError if it was a refusal."""
        if self._outcome is None:
            raise HostError(f"The worker {module} ended without a result.")
        if self._outcome.ok is not None:
            return self._outcome.ok
        if self._outcome.error is None:
            raise HostError(f"The worker {module} wrote invalid output.")
        raise MicaError(self._outcome.error, clean(self._outcome.detail, 1000))
