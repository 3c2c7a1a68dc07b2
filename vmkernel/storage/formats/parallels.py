"""Parallels disks (HDS), by docs/interop/parallels.txt of qemu."""

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
)

__all__ = ["Parallels"]

_HEADER = struct.Struct("<16sIIIIIQ")
_OLD, _NEW = b"WithoutFreeSpace", b"WithouFreSpacExt"
_VERSION = 2
_TABLE_AT = 64
_MAX_ENTRIES = 64 << 20
"""64 TiB in clusters of 1 MiB, the usual size."""
_PIECE_BYTES = 1 << 20


class Parallels(Format):
    """Parallels Desktop and Virtuozzo."""

    noun = "a Parallels disk"
    source = SourceFormat.PARALLELS
    magics = (Magic(0, _OLD), Magic(0, _NEW))
    qemu_name = "parallels"

    def check(self, data: Data) -> None:
        magic, _, _, _, cluster_sectors, entries, _ = unpack(_HEADER, data, 0)
        assert isinstance(cluster_sectors, int)
        assert isinstance(entries, int)
        if entries > _MAX_ENTRIES:
            raise FormatError(f"its table of {entries} clusters is too long")
        last = 0
        for at in range(_TABLE_AT, _TABLE_AT + 4 * entries, _PIECE_BYTES):
            piece = data.read(at, min(_PIECE_BYTES, _TABLE_AT + 4 * entries - at))
            last = max(
                last, *struct.unpack(f"<{len(piece) // 4}I", piece[: len(piece) // 4 * 4]), 0
            )
        sectors = last * (1 if magic == _OLD else cluster_sectors) + cluster_sectors
        if last and sectors * SECTOR_BYTES > data.size:
            raise FormatError("it is cut off: its last clusters are beyond its end")

    def has_tables(self, data: Data) -> bool:
        del data
        return True

    def size(self, data: Data) -> int:
        if data.read(0, 64).lstrip().startswith(b"<?xml"):
            raise FormatError("it is only a descriptor; send the .hds file with the data")
        fields = unpack(_HEADER, data, 0)
        magic, version, sectors = fields[0], fields[1], fields[6]
        if magic not in (_OLD, _NEW):
            raise FormatError("it does not begin like a Parallels disk")
        if version != _VERSION:
            raise FormatError(f"Parallels version {version!r} is not known")
        assert isinstance(sectors, int)
        # Of the old kind the upper half is not part of the number.
        return (sectors & 0xFFFFFFFF if magic == _OLD else sectors) * SECTOR_BYTES
