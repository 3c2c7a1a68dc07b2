"""Graphics cards. The screen is offered by VNC only, to clients that are handed over by QMP:
QEMU itself listens nowhere."""

from __future__ import annotations

from vmkernel.devices.device import Board, Device
from vmkernel.devices.plan import Family, MachinePlan
from vmkernel.model import DisplayModel

__all__ = ["DISPLAY"]

_DRIVERS = {DisplayModel.STD: "VGA", DisplayModel.VIRTIO: "virtio-vga"}
_PLACE = {Family.Q35: "0x1", Family.PC: "0x2"}


def _add(board: Board, plan: MachinePlan) -> None:
    """The display adapter, if there is one, and its VNC server."""
    board.args.text("display", "none")
    driver = _DRIVERS.get(plan.spec.display)
    if driver is None:
        board.args.text("vga", "none")
        return
    board.args.device(driver, id="display", **board.slots.at(_PLACE))
    board.args.keyval("vnc", "none", share="ignore")


DISPLAY = Device(add=_add, place=_PLACE)
