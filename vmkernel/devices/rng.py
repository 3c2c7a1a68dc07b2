"""Random numbers for the guest, from QEMU's own generator: the jail needs no device file."""

from __future__ import annotations

from vmkernel.devices.device import Board, Device
from vmkernel.devices.plan import Family, MachinePlan

__all__ = ["RNG"]

_PLACE = {Family.Q35: "0x3", Family.PC: "0x4.0x1"}


def _add(board: Board, plan: MachinePlan) -> None:
    """The virtio random number device."""
    if plan.spec.rng:
        board.args.object("rng-builtin", "entropy")
        board.args.device("virtio-rng-pci", id="rng", **board.slots.at(_PLACE), rng="entropy")


RNG = Device(add=_add, place=_PLACE)
