"""Watchdogs: a PCI card that any machine takes, and the one in q35's chipset."""

from __future__ import annotations

from collections.abc import Iterator

from vmkernel.devices.arguments import Command
from vmkernel.devices.device import Board, Device, Setting
from vmkernel.devices.plan import Family, MachinePlan
from vmkernel.model import FieldError, VmSpec, WatchdogAction, WatchdogModel

__all__ = ["WATCHDOG", "action_word"]

_FAMILIES = {
    WatchdogModel.I6300ESB: frozenset(Family),
    WatchdogModel.ITCO: frozenset({Family.Q35}),
}
"""The machines that have this model."""
_PLACE = {Family.Q35: "0x9", Family.PC: "0x4.0x3"}
_ACTION_WORDS = {
    WatchdogAction.RESET: "reset",
    WatchdogAction.POWER_OFF: "poweroff",
    WatchdogAction.PAUSE: "pause",
    WatchdogAction.INJECT_NMI: "inject-nmi",
    WatchdogAction.NONE: "none",
}
"""QEMU's words (QAPI: WatchdogAction)."""


def action_word(spec: VmSpec) -> str | None:
    """What QEMU does when the watchdog fires, an option of the whole machine; None without one."""
    return None if spec.watchdog is None else _ACTION_WORDS[spec.watchdog.action]


def _add(board: Board, plan: MachinePlan) -> None:
    watchdog = plan.spec.watchdog
    if watchdog is None:
        return
    if watchdog.model is WatchdogModel.ITCO:
        board.args.keyval("global", driver="ICH9-LPC", property="noreboot", value=False)
    else:
        board.args.device("i6300esb", id="watchdog", **board.slots.at(_PLACE))


def _check(spec: VmSpec, family: Family) -> Iterator[FieldError]:
    if spec.watchdog is not None and family not in _FAMILIES[spec.watchdog.model]:
        yield FieldError(
            pointer="/spec/watchdog/model",
            detail=f"This VM's machine ({family}) has no {spec.watchdog.model}: use i6300esb.",
        )


def _action(spec: VmSpec, _key: str | None) -> list[Command]:
    word = action_word(spec)
    return [] if word is None else [("watchdog-set-action", {"action": word})]


WATCHDOG = Device(
    add=_add, place=_PLACE, check=_check, settings={"watchdog.action": Setting(_action)}
)
