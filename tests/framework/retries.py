"""The one retry that the tests know: the emulator's own fault in nested SVM.

A guest that runs OVMF inside can make the outer QEMU abort with exactly one assertion
(machine.KNOWN_FAULT): its SVM emulation raises a virtual interrupt without its lock when a second
interrupt is pending while the guest's handler of the first writes CR8. OVMF's only interrupt is
its timer's, every 10 ms, and on some machines one of the hundreds of a boot always met another
(15 of 15 boots). `SLOW_GUEST_TIMERS` has the machine's KVM make them rare (3 of 3 boots without
the fault). Only that fault is tried again, at most five times in all, and every time is counted
and reported. Nothing else is ever tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.framework.machine import EmulatorFaultError

__all__ = ["ATTEMPTS", "FAULTS", "SLOW_GUEST_TIMERS", "past_emulator_faults"]

T = TypeVar("T")

SLOW_GUEST_TIMERS = ("kvm.min_timer_period_us=100000",)
"""For the machine's kernel: no guest's periodic timer is faster than ten times a second. Linux
guests use none that is periodic."""

ATTEMPTS = 5
FAULTS: list[str] = []
"""What was tried again, for the report at the end."""


def past_emulator_faults(what: str, attempt: Callable[[], T]) -> T:
    """The outcome of an attempt that starts a machine of its own."""
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except EmulatorFaultError:
            FAULTS.append(f"{what}: attempt {number} of {ATTEMPTS} ended in the emulator's fault")
            if number == ATTEMPTS:
                raise
    raise AssertionError("unreachable")
