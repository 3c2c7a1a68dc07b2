"""What the guest's `write` leaves on a disk, computed on this side."""

from __future__ import annotations

import struct
import zlib

__all__ = ["SECTOR_BYTES", "pattern", "pattern_crc"]

SECTOR_BYTES = 512
_WORD = (1 << 64) - 1


def pattern(offset: int, length: int, seed: int) -> bytes:
    """The bytes of `write DISK OFFSET LENGTH SEED`: each word is the seed plus its sector."""
    sectors = range(offset // SECTOR_BYTES, (offset + length) // SECTOR_BYTES)
    words = SECTOR_BYTES // 8
    return b"".join(struct.pack("<Q", (seed + sector) & _WORD) * words for sector in sectors)


def pattern_crc(offset: int, length: int, seed: int) -> str:
    """What `sum` answers for it."""
    return f"{zlib.crc32(pattern(offset, length, seed)):08x}"
