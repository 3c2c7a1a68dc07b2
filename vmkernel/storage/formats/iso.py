"""CDs and DVDs: ISO 9660 (ECMA-119), UDF (ECMA-167), HFS, and bridges of them."""

from __future__ import annotations

from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import (
    Data,
    Format,
    FormatError,
    Magic,
    Rank,
    whole_sectors,
)

__all__ = ["Iso"]

_SECTOR_BYTES = 2048
_SYNC = Magic(0, b"\0" + 10 * b"\xff" + b"\0")
"""The beginning of each sector of a raw dump (ECMA-130 14.1)."""
_DESCRIPTORS = (
    Magic(0x8001, b"CD001"),  # ISO 9660 (ECMA-119 8.1.2), El Torito and bridges to others included
    Magic(0x8001, b"BEA01"),  # UDF alone (ECMA-167 2/9.2)
)
_HFS = (
    Magic(0x400, b"BD"),
    Magic(0x400, b"H+"),
    Magic(0x200, b"PM"),  # behind a map of partitions
)
"""Too short to recognise a format: they only confirm a declared one."""


class Iso(Format):
    """An image for a CD drive."""

    noun = "an ISO image"
    source = SourceFormat.ISO
    rank = Rank.CONTENT
    magics = _DESCRIPTORS
    qemu_name = None

    def size(self, data: Data) -> int:
        if _SYNC.at(data):
            raise FormatError(
                "it is a dump of a CD with 2,352 bytes a sector; convert it to an ISO image"
            )
        if not any(magic.at(data) for magic in (*_DESCRIPTORS, *_HFS)):
            raise FormatError("there is no file system of a CD in it (ISO 9660, UDF or HFS)")
        return whole_sectors(data.size, _SECTOR_BYTES)
