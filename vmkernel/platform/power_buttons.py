"""The machine's power buttons: they come and go with input devices, and each press is reported."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from vmkernel.host.power_button import PowerButton, power_buttons

__all__ = ["PowerButtons"]

_SETTLE_S = 0.2
"""Input devices appear in groups."""


class PowerButtons:
    """`pressed` is called for each press, while `run` runs."""

    def __init__(self, sys: Path, dev: Path, pressed: Callable[[], None]) -> None:
        self._sys = sys
        self._dev = dev
        self._pressed = pressed
        self._changed = asyncio.Event()

    def look_again(self) -> None:
        """Input devices have come or gone."""
        self._changed.set()

    async def run(self) -> None:
        """Watch all buttons until cancelled."""
        loop = asyncio.get_running_loop()
        opened: dict[Path, PowerButton] = {}
        try:
            while True:
                self._changed.clear()
                present = set(power_buttons(self._sys, self._dev))
                for device in [device for device in opened if device not in present]:
                    loop.remove_reader(opened[device].fileno())
                    opened.pop(device).close()
                for device in present - set(opened):
                    with contextlib.suppress(OSError):
                        button = PowerButton(device)
                        opened[device] = button
                        loop.add_reader(button.fileno(), self._read, button)
                await self._changed.wait()
                await asyncio.sleep(_SETTLE_S)
        finally:
            for button in opened.values():
                loop.remove_reader(button.fileno())
                button.close()

    def _read(self, button: PowerButton) -> None:
        try:
            pressed = button.pressed()
        except OSError:
            asyncio.get_running_loop().remove_reader(button.fileno())
            return
        if pressed:
            self._pressed()
