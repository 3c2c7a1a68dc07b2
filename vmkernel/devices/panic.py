"""The panic device: lets a guest report that it has crashed."""

from __future__ import annotations

from vmkernel.devices.device import Board, Device
from vmkernel.devices.plan import Family, MachinePlan

__all__ = ["PANIC"]

_PLACE = {Family.Q35: "0x5", Family.PC: "0x4.0x0"}


def _add(board: Board, _plan: MachinePlan) -> None:
    """pvpanic on PCI, which needs no ACPI table; every machine has it."""
    board.args.device("pvpanic-pci", id="panic", **board.slots.at(_PLACE))


PANIC = Device(add=_add, place=_PLACE)
