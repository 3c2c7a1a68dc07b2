"""The one retry that the tests know: the emulator's own fault in nested SVM.

A guest that runs OVMF inside makes the outer QEMU abort in about one boot of three with exactly
one assertion (machine.KNOWN_FAULT): its SVM emulation raises a virtual interrupt without its
lock. Only that is tried again, at most five times in all, and every time is counted and
reported. Nothing else is ever tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.framework.machine import EmulatorFaultError

__all__ = ["ATTEMPTS", "FAULTS", "past_emulator_faults"]

T = TypeVar("T")

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
