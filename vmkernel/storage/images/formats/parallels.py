"""Parallels disks (HDS), by docs/interop/parallels.txt of qemu."""

from __future__ import annotations

import struct

from vmkernel.model import SourceFormat
from vmkernel.storage.images.formats.base import (
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


class Parallels(Format):
    """Parallels Desktop and Virtuozzo."""

    noun = "a Parallels disk"
    source = SourceFormat.PARALLELS
    magics = (Magic(0, _OLD), Magic(0, _NEW))
    qemu_name = "parallels"

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
