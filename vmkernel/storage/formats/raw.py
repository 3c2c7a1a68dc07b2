"""Raw disks: the bytes as a guest sees them, recognised by a table of partitions.

MBR: any boot sector's signature.  GPT: UEFI 2.10, 5.3.2.
"""

from __future__ import annotations

from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import (
    SECTOR_BYTES,
    Data,
    Format,
    Magic,
    Rank,
    whole_sectors,
)

__all__ = ["Raw"]


class Raw(Format):
    """Any bytes, if the sender declares them as raw."""

    noun = "a raw disk"
    source = SourceFormat.RAW
    rank = Rank.TABLE
    magics = (Magic(SECTOR_BYTES, b"EFI PART"), Magic(SECTOR_BYTES - 2, b"\x55\xaa"))
    qemu_name = "raw"
    holds_anything = True

    def size(self, data: Data) -> int:
        return whole_sectors(data.size)
