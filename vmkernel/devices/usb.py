"""USB: one xHCI controller, the tablet that gives a pointer without grabbing, a keyboard, storage
ports."""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.slots import Slots

__all__ = [
    "FIRST_STORAGE_PORT",
    "STORAGE_PORTS",
    "USB_BUS",
    "add_controller",
    "add_keyboard",
    "add_tablet",
]

USB_BUS = "usb.0"
_PORTS = 15
_TABLET_PORT = 1
_KEYBOARD_PORT = 2
FIRST_STORAGE_PORT = 4
"""Port 3 is kept for a passed-through device."""
STORAGE_PORTS = 8


def add_controller(args: Arguments, slots: Slots) -> None:
    """The controller; a VM without a display and without anything on USB has none."""
    args.device("qemu-xhci", id="usb", **slots.fixed("usb"), p2=_PORTS, p3=_PORTS)


def add_tablet(args: Arguments) -> None:
    """A pointer with absolute positions, as VNC sends them."""
    args.device("usb-tablet", id="tablet", bus=USB_BUS, port=str(_TABLET_PORT))


def add_keyboard(args: Arguments) -> None:
    """A keyboard, for guests that don't know the machine's own (PS/2)."""
    args.device("usb-kbd", id="keyboard", bus=USB_BUS, port=str(_KEYBOARD_PORT))
