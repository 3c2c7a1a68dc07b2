"""All virtual devices: one line each, in the order in which they are on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vmkernel.devices.agent import AGENT
from vmkernel.devices.balloon import BALLOON_DEVICE
from vmkernel.devices.device import Device, Setting
from vmkernel.devices.disks import DISKS
from vmkernel.devices.display import DISPLAY
from vmkernel.devices.memory import MEMORY_DEVICE
from vmkernel.devices.nic import NICS
from vmkernel.devices.panic import PANIC
from vmkernel.devices.processors import PROCESSORS
from vmkernel.devices.rng import RNG
from vmkernel.devices.serial import SERIAL
from vmkernel.devices.tpm import TPM
from vmkernel.devices.usb import KEYBOARD, TABLET, USB_CONTROLLER
from vmkernel.devices.vsock import VSOCK
from vmkernel.devices.watchdog import WATCHDOG

__all__ = ["DEVICES", "ON_BOARD", "PLUGGED", "SETTINGS"]

ON_BOARD: tuple[Device, ...] = (MEMORY_DEVICE, PROCESSORS)
"""What belongs to the mainboard: it is among the options of the machine itself."""
PLUGGED: tuple[Device, ...] = (
    USB_CONTROLLER,
    TABLET,
    KEYBOARD,
    DISKS,
    NICS,
    DISPLAY,
    SERIAL,
    PANIC,
    AGENT,
    RNG,
    BALLOON_DEVICE,
    WATCHDOG,
    VSOCK,
    TPM,
)
"""What hangs on its buses."""
DEVICES: tuple[Device, ...] = (*ON_BOARD, *PLUGGED)


def _settings(devices: Iterable[Device]) -> Mapping[str, Setting]:
    return {path: setting for device in devices for path, setting in device.settings.items()}


SETTINGS: Mapping[str, Setting] = _settings(DEVICES)
"""The fields that a running machine follows by commands alone, by path."""
