"""Watchdogs: a PCI card that any machine takes, and the one in q35's chipset."""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.plan import Family
from vmkernel.devices.slots import Slots
from vmkernel.model import WatchdogAction, WatchdogModel, WatchdogSpec

__all__ = ["ACTION_WORDS", "WATCHDOG_FAMILIES", "add_watchdog"]

WATCHDOG_FAMILIES = {
    WatchdogModel.I6300ESB: frozenset(Family),
    WatchdogModel.ITCO: frozenset({Family.Q35}),
}
"""The machines that a model can be had on."""

ACTION_WORDS = {
    WatchdogAction.RESET: "reset",
    WatchdogAction.POWER_OFF: "poweroff",
    WatchdogAction.PAUSE: "pause",
    WatchdogAction.INJECT_NMI: "inject-nmi",
    WatchdogAction.NONE: "none",
}
"""QEMU's words (QAPI: WatchdogAction)."""


def add_watchdog(args: Arguments, slots: Slots, spec: WatchdogSpec) -> None:
    """The device; what it does is an option of the whole machine."""
    if spec.model is WatchdogModel.ITCO:
        args.keyval("global", driver="ICH9-LPC", property="noreboot", value=False)
    else:
        args.device("i6300esb", id="watchdog", **slots.fixed("watchdog"))
