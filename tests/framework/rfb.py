"""A small VNC viewer (RFB 3.8): reads a guest's screen and types on its keyboard."""

from __future__ import annotations

import struct
import time

from tests.framework.console import Wire

__all__ = ["RfbError", "Screen", "Viewer"]

SECURITY_NONE = 1
RAW = 0
DESKTOP_SIZE = -223
FRAMEBUFFER_UPDATE, COLOUR_MAP, BELL, CUT_TEXT = 0, 1, 2, 3
KEYS = {"enter": 0xFF0D, "tab": 0xFF09, "escape": 0xFF1B, "down": 0xFF54, "shift": 0xFFE1}
SHIFTED = '~!@#$%^&*()_+{}|:"<>?ABCDEFGHIJKLMNOPQRSTUVWXYZ'


class RfbError(AssertionError):
    """The server violates RFB 3.8, or the screen did not become what it should."""


class Screen:
    """The pixels of a screen, 32 bits each."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.pixels = bytearray(width * height * 4)

    def put(self, x: int, y: int, width: int, data: bytes) -> None:
        """Put a rectangle of pixels."""
        line = width * 4
        for number in range(len(data) // line if line else 0):
            start = ((y + number) * self.width + x) * 4
            self.pixels[start : start + line] = data[number * line : (number + 1) * line]

    def lit(self) -> float:
        """The share of pixels that are not black."""
        pixels = memoryview(self.pixels).cast("I")
        return sum(1 for pixel in pixels if pixel & 0xFFFFFF) / max(1, len(pixels))

    def colours(self) -> int:
        """How many colours it shows."""
        return len(set(memoryview(self.pixels).cast("I")))


class Viewer:
    """One viewer on a wire that carries RFB."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._buffer = bytearray()
        self.screen = self._greet()

    def close(self) -> None:
        self._wire.close()

    def look(self) -> Screen:
        """The whole screen as it is now."""
        self._ask_for_screen()
        while True:
            kind = self._read(1)[0]
            if kind == FRAMEBUFFER_UPDATE:
                if self._take_update():
                    return self.screen
                self._ask_for_screen()
            elif kind == COLOUR_MAP:
                (count,) = struct.unpack("!3xH", self._read(5))
                self._read(count * 6)
            elif kind == CUT_TEXT:
                (length,) = struct.unpack("!3xI", self._read(7))
                self._read(length)
            elif kind != BELL:
                raise RfbError(f"unknown message {kind}")

    def wait_for_picture(
        self, what: str, *, lit: float, colours: int, timeout_s: float, still_s: float = 3.0
    ) -> Screen:
        """Wait until the screen shows something rich enough that no longer changes."""
        deadline = time.monotonic() + timeout_s
        before, since = b"", time.monotonic()
        while True:
            screen = self.look()
            now = bytes(screen.pixels)
            if now != before:
                before, since = now, time.monotonic()
            rich = screen.lit() >= lit and screen.colours() >= colours
            if rich and time.monotonic() - since >= still_s:
                return screen
            if time.monotonic() > deadline:
                raise RfbError(
                    f"{what}: not within {timeout_s:g} s; the screen is {screen.width}x"
                    f"{screen.height}, {screen.lit():.0%} lit, {screen.colours()} colours"
                )
            time.sleep(0.5)

    def press(self, name: str) -> None:
        """Press and release a named key or a character's."""
        code = KEYS.get(name) or ord(name)
        shift = name in SHIFTED
        if shift:
            self._key(KEYS["shift"], down=True)
        self._key(code, down=True)
        self._key(code, down=False)
        if shift:
            self._key(KEYS["shift"], down=False)
        time.sleep(0.1)

    def type(self, text: str) -> None:
        """Type characters of a US keyboard."""
        for character in text:
            self.press(character)

    def _key(self, code: int, *, down: bool) -> None:
        self._wire.send(struct.pack("!BBxxI", 4, int(down), code))

    def _greet(self) -> Screen:
        version = self._read(12)
        if not version.startswith(b"RFB 003."):
            raise RfbError(f"no RFB server: {version!r}")
        self._wire.send(b"RFB 003.008\n")
        kinds = self._read(self._read(1)[0])
        if SECURITY_NONE not in kinds:
            raise RfbError(f"the server wants one of the security types {list(kinds)}")
        self._wire.send(bytes([SECURITY_NONE]))
        if self._read(4) != bytes(4):
            raise RfbError("the server refuses us")
        self._wire.send(b"\1")
        width, height = struct.unpack("!HH16x", self._read(20))
        (length,) = struct.unpack("!I", self._read(4))
        self._read(length)
        pixel_format = struct.pack("!BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
        self._wire.send(b"\0\0\0\0" + pixel_format)
        self._wire.send(struct.pack("!BxHii", 2, 2, RAW, DESKTOP_SIZE))
        return Screen(width, height)

    def _ask_for_screen(self) -> None:
        size = (self.screen.width, self.screen.height)
        self._wire.send(struct.pack("!BBHHHH", 3, 0, 0, 0, *size))

    def _take_update(self) -> bool:
        """Take one update; False if the screen has changed its size."""
        whole = True
        (count,) = struct.unpack("!xH", self._read(3))
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack("!HHHHi", self._read(12))
            if encoding == DESKTOP_SIZE:
                self.screen = Screen(width, height)
                whole = False
            elif encoding == RAW:
                self.screen.put(x, y, width, self._read(width * height * 4))
            else:
                raise RfbError(f"unasked encoding {encoding}")
        return whole

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = self._wire.receive()
            if not data:
                raise RfbError("the server closed the connection")
            self._buffer += data
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data
