"""The machine's power button: an input device (evdev) of the ACPI button driver."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from vmkernel.host.sysfs import DEV, SYS, read_text, subfolders

__all__ = ["PowerButton", "power_buttons"]

_EVENT = struct.Struct("llHHi")
_EV_KEY = 1
_KEY_POWER = 116
_PRESSED = 1
_BUTTON_PHYS = ("PNP0C0C/", "LNXPWRBN/")
"""The ACPI ids of the power button as a device and as a fixed feature."""


class PowerButton:
    """One button; readable after an event."""

    def __init__(self, device: Path) -> None:
        self.device = device
        self._fd = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def pressed(self) -> bool:
        """Read all pending events; True if the button was pressed."""
        found = False
        while True:
            try:
                data = os.read(self._fd, _EVENT.size * 64)
            except BlockingIOError:
                return found
            if not data:
                return found
            for offset in range(0, len(data) - _EVENT.size + 1, _EVENT.size):
                _, _, kind, code, value = _EVENT.unpack_from(data, offset)
                found |= (kind, code, value) == (_EV_KEY, _KEY_POWER, _PRESSED)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)


def power_buttons(sys: Path = SYS, dev: Path = DEV) -> Iterator[Path]:
    """The event devices of the machine's power buttons, without keyboards' power keys."""
    for name in subfolders(sys / "class/input"):
        if not name.startswith("event"):
            continue
        phys = read_text(sys / "class/input" / name / "device/phys") or ""
        if phys.startswith(_BUTTON_PHYS):
            yield dev / "input" / name
