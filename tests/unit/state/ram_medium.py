"""A medium in memory that can lose power, lose writes, tear them, or fail."""

from __future__ import annotations

import errno
from collections.abc import Callable

__all__ = ["PowerCutError", "RamMedium"]

SECTOR = 512
Tear = Callable[[bytes, bytes], bytes]
"""Given the old and the new content of the part that is written: what the medium then holds."""


class PowerCutError(Exception):
    """The machine is gone in the middle of a write."""


class RamMedium:
    """Satisfies vmkernel.state.Medium."""

    def __init__(self, slots: int = 4, slot_bytes: int = 4096) -> None:
        self._slots = slots
        self._slot_bytes = slot_bytes
        self.data = bytearray(slots * slot_bytes)
        self.tear: Tear | None = None
        self.failing = False
        self.writes: list[int] = []

    @property
    def slot_bytes(self) -> int:
        """The size of one slot."""
        return self._slot_bytes

    @property
    def slot_count(self) -> int:
        """How many slots there are."""
        return self._slots

    def read(self, slot: int, length: int) -> bytes:
        """The first bytes of a slot."""
        start = slot * self._slot_bytes
        return bytes(self.data[start : start + length])

    def write(self, slot: int, data: bytes) -> None:
        """Write the beginning of a slot, as well as the present fault allows."""
        assert len(data) <= self._slot_bytes
        if self.failing:
            raise OSError(errno.EIO, "Input/output error")
        self.writes.append(slot)
        start = slot * self._slot_bytes
        end = start + len(data)
        if self.tear is not None:
            self.data[start:end] = self.tear(bytes(self.data[start:end]), data)
            raise PowerCutError
        self.data[start:end] = data
