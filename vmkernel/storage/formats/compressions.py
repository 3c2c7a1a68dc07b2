"""Compressions, one line each: how they are recognised, and whether they are supported.

gzip   RFC 1952 2.3.1;  xz  the .xz format 2.1.1.1;  zstd  RFC 8878 3.1.1
bzip2  bzip2's compress.c: a file begins with a block, or with its end if it is empty
lz4    lz4_Frame_format.md, also the older format that Linux takes
lzma   LZMA_Alone (the LZMA SDK's lzma.txt);  others: file(1)'s magic
"""

from __future__ import annotations

from dataclasses import dataclass

from vmkernel.model import Compression
from vmkernel.storage.formats.base import Data, Magic

__all__ = ["PACKINGS", "Packing", "packing_of"]

_SKIPPABLE = b"\x2a\x4d\x18"
_BZIP2 = tuple(
    Magic(0, b"BZh%d%b" % (level, mark))
    for level in range(1, 10)
    for mark in (b"1AY&SY", b"\x17rE8P\x90")
)
_LZMA = tuple(Magic(0, b"\x5d" + (1 << log).to_bytes(4, "little")) for log in range(16, 31))
"""By its usual properties and dictionary sizes: it has no magic number."""


@dataclass(frozen=True)
class Packing:
    """One compression."""

    name: str
    magics: tuple[Magic, ...]
    kind: Compression | None = None
    """None: it is recognised and named, but not unpacked."""
    linux_unpacks: bool = False
    """True if Linux accepts an initrd compressed in this way."""
    skips_frames: bool = False
    """True if it may begin with frames without data."""

    @property
    def noun(self) -> str:
        """With its article, for messages."""
        return f"a file compressed by {self.name}"

    def begins(self, data: Data) -> bool:
        """True if the first bytes show it."""
        return any(magic.at(data) for magic in self.magics)


PACKINGS = (
    Packing("gzip", (Magic(0, b"\x1f\x8b\x08"),), Compression.GZIP, linux_unpacks=True),
    Packing("xz", (Magic(0, b"\xfd7zXZ\0"),), Compression.XZ, linux_unpacks=True),
    Packing(
        "zstd",
        (Magic(0, b"\x28\xb5\x2f\xfd"),),
        Compression.ZSTD,
        linux_unpacks=True,
        skips_frames=True,
    ),
    Packing("bzip2", _BZIP2, Compression.BZIP2, linux_unpacks=True),
    Packing("lz4", (Magic(0, b"\x04\x22\x4d\x18"),), skips_frames=True),
    Packing("lz4", (Magic(0, b"\x02\x21\x4c\x18"),), linux_unpacks=True),
    Packing("lzma", _LZMA, linux_unpacks=True),
    Packing("lzop", (Magic(0, b"\x89LZO\0\r\n\x1a\n"),), linux_unpacks=True),
    Packing("lzip", (Magic(0, b"LZIP\x01"),)),
    Packing("compress", (Magic(0, b"\x1f\x9d"),)),
)


class _From:
    """Data from an offset on."""

    def __init__(self, data: Data, offset: int) -> None:
        self._data = data
        self._offset = offset

    @property
    def size(self) -> int:
        return self._data.size - self._offset

    def read(self, offset: int, count: int) -> bytes:
        return self._data.read(self._offset + offset, count)


def packing_of(data: Data) -> Packing | None:
    """The compression of data, by their first frame; None if there is none."""
    at = 0
    while (skipped := data.read(at, 8))[1:4] == _SKIPPABLE and skipped[0] >> 4 == 5:
        if len(skipped) < 8:
            break
        at += 8 + int.from_bytes(skipped[4:], "little")
        if at >= data.size:
            # Of lz4, which has the same frames, nothing is known that begins so.
            return next(item for item in PACKINGS if item.kind is Compression.ZSTD)
    behind = _From(data, at)
    return next(
        (item for item in PACKINGS if item.begins(behind) and (item.skips_frames or not at)), None
    )
