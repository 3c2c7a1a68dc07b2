"""USB: one xHCI controller, the tablet that gives a pointer without grabbing, a keyboard, storage
ports."""

from __future__ import annotations

from vmkernel.devices.arguments import Arguments, Command
from vmkernel.devices.defaults import has_bus
from vmkernel.devices.device import Board, Device, Setting
from vmkernel.devices.plan import Family, MachinePlan
from vmkernel.model import DiskBus, DisplayModel, VmSpec

__all__ = [
    "FIRST_STORAGE_PORT",
    "KEYBOARD",
    "NO_USB",
    "STORAGE_PORTS",
    "TABLET",
    "USB_BUS",
    "USB_CONTROLLER",
    "has_usb",
]

USB_BUS = "usb.0"
_PORTS = 15
_TABLET_PORT = 1
_KEYBOARD_PORT = 2
FIRST_STORAGE_PORT = 4
"""Port 3 is kept for a passed-through device."""
STORAGE_PORTS = 8
_PLACE = {Family.Q35: "0x2", Family.PC: "0x3"}
NO_USB = "The VM was started without a USB controller."


def has_usb(spec: VmSpec) -> bool:
    """True if a machine that starts with this has a USB controller: one without a display and
    without anything on USB has none."""
    shown = spec.display is not DisplayModel.NONE
    return shown or spec.keyboard or has_bus(spec, DiskBus.USB)


def _add_controller(board: Board, _plan: MachinePlan) -> None:
    if board.topology is not None and board.topology.usb:
        board.args.device("qemu-xhci", id="usb", **board.slots.at(_PLACE), p2=_PORTS, p3=_PORTS)


def _has_tablet(spec: VmSpec) -> bool:
    return spec.tablet and spec.display is not DisplayModel.NONE


def _tablet(args: Arguments) -> None:
    """A pointer with absolute positions, as VNC sends them."""
    args.device("usb-tablet", id="tablet", bus=USB_BUS, port=str(_TABLET_PORT))


def _keyboard(args: Arguments) -> None:
    """A keyboard, for guests that don't know the machine's own (PS/2)."""
    args.device("usb-kbd", id="keyboard", bus=USB_BUS, port=str(_KEYBOARD_PORT))


def _add_tablet(board: Board, plan: MachinePlan) -> None:
    if _has_tablet(plan.spec):
        _tablet(board.args)


def _add_keyboard(board: Board, plan: MachinePlan) -> None:
    if plan.spec.keyboard:
        _keyboard(board.args)


def _set_tablet(spec: VmSpec, _key: str | None) -> list[Command]:
    if not _has_tablet(spec):
        return [("device_del", {"id": "tablet"})]
    args = Arguments()
    _tablet(args)
    return args.commands()


def _set_keyboard(spec: VmSpec, _key: str | None) -> list[Command]:
    if not spec.keyboard:
        return [("device_del", {"id": "keyboard"})]
    args = Arguments()
    _keyboard(args)
    return args.commands()


def _barred(at_start: VmSpec, _new: VmSpec) -> str | None:
    return None if has_usb(at_start) else NO_USB


USB_CONTROLLER = Device(add=_add_controller, place=_PLACE)
TABLET = Device(add=_add_tablet, settings={"tablet": Setting(_set_tablet, _barred)})
KEYBOARD = Device(add=_add_keyboard, settings={"keyboard": Setting(_set_keyboard, _barred)})
