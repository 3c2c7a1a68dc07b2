"""A screen without a monitor (Xvfb) on which real VNC viewers show what they show.

The screen's pixels are a file in X's dump format (XWD), which Xvfb keeps current; xdotool types as
a person would. All programs run from their own tree.
"""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance_build.tools.sandbox import ToolsSandbox
from tests.framework import inputs
from tests.framework.ending import started

__all__ = ["XScreen", "x_screen"]

SIZE = (1280, 1024)
START_S = 30.0
FIRST_DISPLAY = 80


class XScreen:
    """An X display that runs."""

    def __init__(self, display: str, folder: Path, sandbox: ToolsSandbox) -> None:
        self.display = display
        self.folder = folder
        self._dump = folder / "Xvfb_screen0"
        self._sandbox = sandbox

    def command(self, *words: str) -> list[str]:
        """The words that start a program of the viewers' tree on this display."""
        return ["env", f"DISPLAY={self.display}", *self._sandbox.argv(words)]

    def rows(self) -> list[bytes]:
        """The screen now: a row is red, green and blue, a byte each."""
        dump = self._dump.read_bytes()
        # XWDFile.h: the header's size, version, format, depth, width, height, ...
        head = struct.unpack(">25I", dump[:100])
        size, width, height, bits, line, colours = (head[i] for i in (0, 4, 5, 11, 12, 19))
        assert bits == 32, head
        at = size + colours * 12
        return [
            _rgb(memoryview(dump)[at + y * line : at + y * line + width * 4]) for y in range(height)
        ]

    def type(self, key: str) -> None:
        """Press and release a key in the one window."""
        # There is no window manager, so nothing else gives a window the keyboard.
        find = ("search", "--onlyvisible", "--maxdepth", "1", "--name", ".+")
        point = ("mousemove", "--window", "%1", "100", "100", "click", "1")
        words = self.command("xdotool", *find, "windowfocus", "--sync", *point, "key", key)
        subprocess.run(words, check=True, timeout=START_S)

    def wait_until_up(self) -> None:
        """Return once programs can open windows."""
        end = time.monotonic() + START_S
        words = self.command("xdotool", "getdisplaygeometry")
        while subprocess.run(words, capture_output=True, timeout=START_S, check=False).returncode:
            assert time.monotonic() < end, f"no X server at {self.display}"
            time.sleep(0.2)


@contextmanager
def x_screen(folder: Path, *, beside: int = 0) -> Iterator[XScreen]:
    """A fresh X display; its files are in `folder`. A second one is `beside` the first."""
    sandbox = ToolsSandbox(inputs.tools(), system=inputs.viewers(), writable=(folder,))
    number = FIRST_DISPLAY + 2 * (os.getpid() % 1000) + beside
    argv = sandbox.argv(
        [
            *("Xvfb", f":{number}", "-ac", "-nolisten", "unix"),
            *("-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24", "-fbdir", folder),
        ]
    )
    with (folder / "xvfb.log").open("wb") as log:
        server = started(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        screen = XScreen(f":{number}", folder, sandbox)
        screen.wait_until_up()
        yield screen
    finally:
        server.terminate()
        server.wait(START_S)


def _rgb(row: memoryview) -> bytes:
    """Blue, green, red and nothing, four bytes each, as three."""
    pixels = bytearray(len(row) // 4 * 3)
    pixels[0::3], pixels[1::3], pixels[2::3] = row[2::4], row[1::4], row[0::4]
    return bytes(pixels)
