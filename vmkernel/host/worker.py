"""Starts `vmkernel.workers`: processes of their own for data from outside.

Each runs as an unprivileged uid (in the appliance), under limits on memory, file size, system
calls and files that it puts on itself before it looks at the data, and ends when this process
does. One that says nothing for a while is killed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vmkernel
from vmkernel.host.errors import HostError
from vmkernel.host.runner import FIXED_ENVIRONMENT, Runner
from vmkernel.model import ErrorCode, MicaError

__all__ = ["Confinement", "Workers"]

_SILENCE_S = 120.0
_LINE_BYTES = 1 << 20
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
    """Where they come from and what they all may read."""

    runner: Runner
    readable: tuple[str, ...] = ("/",)
    """In the appliance: programs, libraries and settings alone."""
    allow_loopback: bool = False
    """Images may be fetched from this machine itself (hosted mode, where asked for)."""
    pull_uid: int | None = None
    """Runs what speaks to servers; None: as ourselves."""
    environment: Mapping[str, str] = field(
        default_factory=lambda: {
            **FIXED_ENVIRONMENT,
            "PYTHONPATH": str(_ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
    )

    def prefix(self, confinement: Confinement) -> list[str]:
        """What stands before a program's own words to run it confined."""
        return [*self._python("vmkernel.workers.become"), self._policy(confinement)]

    def program(self, name: str) -> str:
        """A tool's path, where it is not to be looked for."""
        return str(self.runner.programs.get(name, name))

    @property
    def confined_runner(self) -> Runner:
        """Runs what `prefix` begins."""
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
    ) -> dict[str, Any]:
        """The outcome of a worker's work; MicaError with what it refused."""
        reader = _Lines(on_progress)
        argv = [*self._python(f"vmkernel.workers.{module}"), self._policy(confinement)]
        await self.confined_runner.run(
            [*argv, json.dumps(dict(job))],
            timeout_s=timeout_s,
            silence_s=_SILENCE_S,
            on_stdout=reader.feed,
            pass_fds=fds,
            user=user,
        )
        return reader.outcome(module)

    def _policy(self, confinement: Confinement) -> str:
        return json.dumps(
            {
                "parent": os.getpid(),
                "memory_bytes": confinement.memory_bytes,
                "file_bytes": confinement.file_bytes,
                "read": [*self.readable, *map(str, confinement.read)],
                "write": [str(path) for path in confinement.write],
                "network": confinement.network,
            }
        )

    @staticmethod
    def _python(module: str) -> list[str]:
        return [sys.executable, "-s", "-P", "-m", module]


class _Lines:
    """Collects a worker's JSON lines."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._rest = b""
        self._outcome: dict[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        """Take a piece of its output."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES:
            raise HostError("A worker wrote a line without an end.")
        for line in lines:
            message = _message(line)
            if "done" in message:
                self._on_progress(int(message["done"]), int(message["total"]))
            else:
                self._outcome = message

    def outcome(self, module: str) -> dict[str, Any]:
        """The last word; MicaError where it was a refusal."""
        if self._outcome is None:
            raise HostError(f"The worker {module} ended without an outcome.")
        if "ok" in self._outcome:
            ok = self._outcome["ok"]
            return ok if isinstance(ok, dict) else {}
        try:
            code = ErrorCode(str(self._outcome.get("error")))
        except ValueError as error:
            raise HostError(f"The worker {module} can't be understood.") from error
        raise MicaError(code, str(self._outcome.get("detail", ""))[:1000])


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
        if not isinstance(message, dict):
            raise TypeError
        if "done" in message:
            int(message["done"]), int(message["total"])
    except (ValueError, TypeError, KeyError) as error:
        raise HostError("A worker can't be understood.") from error
    return message
