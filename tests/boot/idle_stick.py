"""A machine that is started, claimed and then left alone while other tests run."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.framework.appliance import Appliance
from tests.framework.plugged_in import Setup, plugged_in

__all__ = ["IDLE_S", "IdleStick", "StickCount"]

IDLE_S = 300.0
SETTLE_S = 15.0
"""After the claim, for what it wrote to be counted."""


@dataclass(frozen=True)
class StickCount:
    """What was written to the stick since power-on."""

    time_s: float
    bytes_outside: int
    operations_outside: int
    bytes_inside: int
    """By the appliance's own account."""


class IdleStick:
    """The machine; it is started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._appliance: Appliance | None = None
        self._before: StickCount | None = None

    def begin(self) -> StickCount:
        """Start the machine and let it be idle from now on; what it had written by then."""
        if self._before is None:
            setup = Setup(folder=self._folder, name="idle", memory_mib=1024)
            self._appliance = self._stack.enter_context(plugged_in(setup))
            time.sleep(SETTLE_S)
            self._before = self._count()
        return self._before

    def after_five_minutes(self) -> StickCount:
        """What it has written once five idle minutes are over."""
        since = self.begin().time_s
        time.sleep(max(0.0, since + IDLE_S - time.monotonic()))
        return self._count()

    def end(self) -> None:
        """Switch it off."""
        self._stack.close()

    def _count(self) -> StickCount:
        assert self._appliance is not None
        machine = self._appliance.machine
        inside = int(self._appliance.host()["stick"]["written_bytes"])
        return StickCount(
            time_s=time.monotonic(),
            bytes_outside=machine.written_bytes("stick"),
            operations_outside=machine.write_operations("stick"),
            bytes_inside=inside,
        )
