"""What the end of a QEMU means for its VM."""

from __future__ import annotations

from collections.abc import Callable

from vmkernel.model import VmState
from vmkernel.qemu import GuestEnded
from vmkernel.vm.machine.restart_policy import End

__all__ = ["UNFED", "verdict"]

UNFED = "The guest did not feed its watchdog."


def verdict(
    ended: GuestEnded | None, how: str | None, last_lines: Callable[[], str]
) -> tuple[VmState, str | None, End]:
    """The VM's state, the reason in words, and the kind of end for the restart policy.

    `ended` is what QEMU announced, `how` what its launcher saw, `last_lines` its last messages.
    """
    if ended is None:
        detail = ": ".join(part for part in (how, last_lines()) if part) or "no message"
        return VmState.CRASHED, f"QEMU ended unexpectedly ({detail}).", End.FAILED
    if ended.cause == "guest-panic":
        return VmState.CRASHED, "The guest reported a panic and was powered off.", End.FAILED
    if ended.cause == "watchdog":
        return VmState.CRASHED, f"{UNFED} It was powered off.", End.FAILED
    if ended.cause == "host-qmp-quit":
        return VmState.STOPPED, None, End.ASKED
    if ended.by_guest:
        return VmState.STOPPED, None, End.GUEST
    return VmState.STOPPED, f"QEMU was ended from outside ({ended.cause}).", End.FAILED
