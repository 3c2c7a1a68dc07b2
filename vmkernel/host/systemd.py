"""systemd as the supervisor of units: start, stop, query; by `systemctl`, which talks to PID 1 over
its private socket, because there is no D-Bus daemon in the appliance.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmkernel.host.errors import CommandError
from vmkernel.host.runner import Runner

__all__ = ["Systemd", "UnitStatus"]

_TIMEOUT_S = 200.0
"""Longer than a unit's own start time-out (DefaultTimeoutStartSec), which systemd reports."""


@dataclass(frozen=True)
class UnitStatus:
    """The state of a unit."""

    active: str
    """`active`, `activating`, `deactivating`, `inactive`, `failed`."""
    result: str
    """`success`, `exit-code`, `signal`, `oom-kill`, `timeout`, …"""
    code: int
    """Exit code or signal number of the main process."""


class Systemd:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def start(self, unit: str) -> None:
        """Start a unit and wait until it has started; CommandError with systemd's message."""
        await self._run("start", unit)

    async def stop(self, unit: str) -> None:
        """Stop a unit and wait until it has stopped."""
        await self._run("stop", unit)

    async def reset_failed(self, unit: str) -> None:
        """Clear a unit's failure; systemd then reads the unit again at its next start."""
        try:
            await self._run("reset-failed", unit)
        except CommandError as error:
            if "not loaded" not in error.output:
                raise

    async def status(self, unit: str) -> UnitStatus:
        """The state of a unit; `inactive` if systemd doesn't know it."""
        completed = await self._run("show", unit, "--property=ActiveState,Result,ExecMainStatus")
        found = dict(line.split("=", 1) for line in completed.decode().splitlines() if "=" in line)
        code = found.get("ExecMainStatus", "")
        return UnitStatus(
            active=found.get("ActiveState", "inactive"),
            result=found.get("Result", "success"),
            code=int(code) if code.isdigit() else 0,
        )

    async def is_stopping(self) -> bool:
        """True while the whole system is shutting down."""
        completed = await self._runner.run(
            ["systemctl", "is-system-running"], timeout_s=_TIMEOUT_S, ok=tuple(range(8))
        )
        return completed.stdout.strip() == b"stopping"

    async def _run(self, *words: str) -> bytes:
        completed = await self._runner.run(
            ["systemctl", "--no-ask-password", "--no-pager", *words], timeout_s=_TIMEOUT_S
        )
        return completed.stdout
