"""LUKS 1 and 2: encrypted disks, by cryptsetup's "LUKS1 On-Disk Format" and "LUKS2" documents.

A key can't be given to the host. A guest can open such a disk by itself: for that it is sent as
raw.
"""

from __future__ import annotations

import struct

from vmkernel.storage.formats.base import (
    SECTOR_BYTES,
    Data,
    Format,
    FormatError,
    Magic,
    Rank,
    unpack,
)

__all__ = ["Luks"]

_HEADER = struct.Struct(">6sH32s32s32sI")


class Luks(Format):
    """Recognised only."""

    noun = "a disk encrypted by LUKS"
    advice = (
        "decrypt it first (`qemu-img convert` takes its key); if the guest itself opens it,"
        " set the format to raw"
    )
    rank = Rank.CONTENT
    magics = (Magic(0, b"LUKS\xba\xbe"),)

    def size(self, data: Data) -> int:
        _, version, _, _, _, payload = unpack(_HEADER, data, 0)
        if version != 1:
            raise FormatError("its header does not state its size")
        assert isinstance(payload, int)
        return max(0, data.size - payload * SECTOR_BYTES)
