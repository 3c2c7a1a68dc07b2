"""How much of our processor one talkative QEMU may take.

A budget is kept in seconds of CPU time, which covers any cost of a message: a long line, many short
ones, an event that must be handled. A QEMU that has overdrawn it isn't read for a while. Its output
then waits in its own memory, which its cgroup limits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["Budget", "READING"]


@dataclass
class Budget:
    """A bucket of CPU time that refills at `rate` seconds per second."""

    rate: float
    burst_s: float
    _level_s: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._level_s = self.burst_s
        self._at = time.monotonic()

    def pay(self, seconds: float) -> None:
        """Subtract what was used; the level may become negative."""
        self._fill()
        self._level_s -= seconds

    @property
    def wait_s(self) -> float:
        """How long to wait before using more; 0 if something is left."""
        self._fill()
        return max(0.0, -self._level_s / self.rate)

    @property
    def is_half_used(self) -> bool:
        """True if it has used much recently."""
        self._fill()
        return self._level_s < self.burst_s / 2

    def _fill(self) -> None:
        now = time.monotonic()
        self._level_s = min(self.burst_s, self._level_s + (now - self._at) * self.rate)
        self._at = now


READING = Budget(rate=0.25, burst_s=0.5)
"""Of all QEMUs together: a quarter of the one CPU that answers requests."""
