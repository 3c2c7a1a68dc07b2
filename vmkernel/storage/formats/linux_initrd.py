"""Initial file systems of Linux: cpio archives, compressed or not.

Documentation/driver-api/early-userspace/buffer-format.rst; what lib/decompress.c unpacks.
"""

from __future__ import annotations

from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import Data, Format, FormatError, Magic, Rank
from vmkernel.storage.formats.compressions import PACKINGS

__all__ = ["LinuxInitrd"]

_CPIO = (Magic(0, b"070701"), Magic(0, b"070702"))


class LinuxInitrd(Format):
    """Kept unchanged, even if compressed: the kernel unpacks it."""

    noun = "an initrd"
    source = SourceFormat.LINUX_INITRD
    rank = Rank.CONTENT
    magics = _CPIO
    may_begin_like_archives = True

    def size(self, data: Data) -> int:
        packed = any(item.linux_unpacks and item.begins(data) for item in PACKINGS)
        if not packed and not self.begins(data):
            raise FormatError("it is neither a cpio archive nor a compressed one")
        return data.size
