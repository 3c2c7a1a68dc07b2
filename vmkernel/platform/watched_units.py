"""The few units next to the vmkernel: whether they run, and whether one was started again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from vmkernel.model import Finding, Severity

__all__ = ["WATCHED", "WatchedUnits"]

WATCHED: Mapping[str, str] = {
    "mica-api.service": "The remote API",
    "systemd-networkd.service": "The network's configuration",
    "systemd-udevd.service": "The drivers' loading",
    "systemd-journald.service": "The log",
}
_GRACE_S = 20.0
"""How long a unit may be without a process (while it starts) before that is a finding."""


class WatchedUnits:
    """Compares process ids; cheap enough to look often."""

    def __init__(
        self,
        main_pid: Callable[[str], int | None],
        units: Mapping[str, str] = WATCHED,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._main_pid = main_pid
        self._units = units
        self._monotonic = monotonic
        self._pids: dict[str, int | None] = {}
        self._missing_since: dict[str, float] = {}

    def poll(self) -> bool:
        """One check; True if a unit was restarted or has ended since the last one."""
        restarted = False
        now = self._monotonic()
        for unit in self._units:
            pid = self._main_pid(unit)
            before = self._pids.get(unit)
            restarted |= before is not None and pid != before
            self._pids[unit] = pid
            if pid is None:
                self._missing_since.setdefault(unit, now)
            else:
                self._missing_since.pop(unit, None)
        return restarted

    def findings(self) -> tuple[Finding, ...]:
        """The units that should run and don't."""
        now = self._monotonic()
        return tuple(
            Finding(
                code="unit-not-running",
                severity=Severity.ERROR,
                message=f"{self._units[unit]} ({unit}) is not running; it is being restarted.",
                subject=unit,
            )
            for unit, since in self._missing_since.items()
            if now - since > _GRACE_S
        )
