"""VDI: VirtualBox's disks, by its VDICore.h, as qemu's block/vdi.c reads them."""

from __future__ import annotations

import struct

from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import (
    Data,
    Format,
    FormatError,
    Magic,
    unpack,
    whole_sectors,
)

__all__ = ["Vdi"]

_SIGNATURE = struct.Struct("<IIII")
_SIGNATURE_AT = 0x40
_MAGIC = 0xBEDA107F
_VERSION_1_1 = 0x00010001
_SIZE_AT = 0x170
_BLOCKS_AT, _BLOCK_BYTES_AT, _EXTRA_BYTES_AT, _ALLOCATED_AT = 0x158, 0x178, 0x17C, 0x184
_PARENTS_AT, _PARENTS_BYTES = 0x1A8, 32
_DYNAMIC, _FIXED, _DIFFERENCING = 1, 2, 4


class Vdi(Format):
    noun = "a VDI file"
    source = SourceFormat.VDI
    magics = (Magic(_SIGNATURE_AT, _MAGIC.to_bytes(4, "little")),)
    qemu_name = "vdi"

    def size(self, data: Data) -> int:
        magic, version, _, _ = unpack(_SIGNATURE, data, _SIGNATURE_AT)
        if magic != _MAGIC:
            raise FormatError("it does not begin like a VDI file")
        if version != _VERSION_1_1:
            raise FormatError(f"VDI version {version!r} is not known")
        return whole_sectors(int.from_bytes(data.read(_SIZE_AT, 8), "little"))

    def check(self, data: Data) -> None:
        kind = unpack(_SIGNATURE, data, _SIGNATURE_AT)[3]
        if kind == _DIFFERENCING or any(data.read(_PARENTS_AT, _PARENTS_BYTES)):
            raise FormatError("it is a differencing VDI, which needs its parent; clone it first")
        if kind not in (_DYNAMIC, _FIXED):
            raise FormatError(f"VDI type {kind!r} is not known")
        blocks_at, block_bytes, extra_bytes, allocated = (
            int.from_bytes(data.read(at, 4), "little")
            for at in (_BLOCKS_AT, _BLOCK_BYTES_AT, _EXTRA_BYTES_AT, _ALLOCATED_AT)
        )
        if blocks_at + allocated * (block_bytes + extra_bytes) > data.size:
            raise FormatError("it is cut off: its last blocks are beyond its end")
