"""Graphics cards. The screen is offered by VNC only, to clients that are handed over by QMP:
QEMU itself listens nowhere."""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.slots import Slots
from vmkernel.model import DisplayModel

__all__ = ["add_display"]

_DRIVERS = {DisplayModel.STD: "VGA", DisplayModel.VIRTIO: "virtio-vga"}


def add_display(args: Arguments, slots: Slots, model: DisplayModel) -> None:
    """The card, where there is one, and the VNC server behind it."""
    args.text("display", "none")
    driver = _DRIVERS.get(model)
    if driver is None:
        args.text("vga", "none")
        return
    args.device(driver, id="display", **slots.fixed("display"))
    args.keyval("vnc", "none", share="ignore")
