"""How full a datastore is: figures and levels, with hysteresis so that nothing flaps; pure.

ok --used >= warning--> warning --used >= critical--> critical
ok <-used < warning-2-- warning <-used < critical-2-- critical
"""

from __future__ import annotations

from dataclasses import dataclass

from vmkernel.model import MicaError, SpaceLevel

__all__ = ["HYSTERESIS_PERCENT", "Space", "check_thresholds", "next_level"]

HYSTERESIS_PERCENT = 2


@dataclass(frozen=True)
class Space:
    """What a file system told, in bytes."""

    capacity_bytes: int = 0
    free_bytes: int = 0

    @property
    def used_percent(self) -> float:
        """Of the capacity."""
        if not self.capacity_bytes:
            return 0.0
        return 100 * (self.capacity_bytes - self.free_bytes) / self.capacity_bytes


def check_thresholds(warning_percent: int, critical_percent: int) -> None:
    """`invalid` where the warning would come after the error."""
    if not 1 <= warning_percent <= critical_percent <= 100:
        raise MicaError.field(
            "/spec/warning_percent", "It is between 1 and critical_percent, and that at most 100."
        )


def next_level(
    before: SpaceLevel, used_percent: float, warning_percent: int, critical_percent: int
) -> SpaceLevel:
    """The level now; it is left downwards only when usage is clearly below its threshold."""
    critical: float = critical_percent
    warning: float = warning_percent
    if before is SpaceLevel.CRITICAL:
        critical -= HYSTERESIS_PERCENT
    if before is not SpaceLevel.OK:
        warning -= HYSTERESIS_PERCENT
    if used_percent >= critical:
        return SpaceLevel.CRITICAL
    return SpaceLevel.WARNING if used_percent >= warning else SpaceLevel.OK
