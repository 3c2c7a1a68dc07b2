"""VHD: Virtual PC, Hyper-V and Azure; "Virtual Hard Disk Image Format Specification" 1.0."""

from __future__ import annotations

import struct

from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import (
    SECTOR_BYTES,
    Data,
    Format,
    FormatError,
    Magic,
    unpack,
    whole_sectors,
)

__all__ = ["Vhd"]

_COOKIE = b"conectix"
_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")
_CHECKSUM = slice(64, 68)
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4


class Vhd(Format):
    """A footer behind the data; a dynamic disk has a copy of it at the beginning."""

    noun = "a VHD file"
    source = SourceFormat.VHD
    magics = (Magic(0, _COOKIE),)
    qemu_name = "vpc"

    def matches(self, data: Data) -> bool:
        return self.begins(data) or (
            data.size >= 2 * SECTOR_BYTES
            and data.read(data.size - SECTOR_BYTES, len(_COOKIE)) == _COOKIE
        )

    def size(self, data: Data) -> int:
        fields = unpack(_FOOTER, data, self._footer_at(data))
        current, cylinders, heads, sectors = fields[9:13]
        assert isinstance(current, int)
        assert isinstance(cylinders, int)
        assert isinstance(heads, int)
        assert isinstance(sectors, int)
        # qemu-img goes by either, depending on what made the disk.
        return whole_sectors(max(current, cylinders * heads * sectors * SECTOR_BYTES))

    def check(self, data: Data) -> None:
        at = self._footer_at(data)
        kind = unpack(_FOOTER, data, at)[13]
        if kind == _DIFFERENCING:
            raise FormatError("it is a differencing VHD, which needs its parent; merge it first")
        if kind not in (_FIXED, _DYNAMIC):
            raise FormatError(f"VHD type {kind!r} is not known")
        raw = bytearray(data.read(at, SECTOR_BYTES))
        stated = int.from_bytes(raw[_CHECKSUM], "big")
        raw[_CHECKSUM] = bytes(4)
        if ~sum(raw) & 0xFFFFFFFF != stated:
            raise FormatError("its VHD footer has a wrong checksum")

    def _footer_at(self, data: Data) -> int:
        at = 0 if self.begins(data) else max(0, data.size - SECTOR_BYTES)
        if data.read(at, len(_COOKIE)) != _COOKIE:
            raise FormatError("there is neither a VHD header nor a VHD footer in it")
        return at
