"""What the data of a new image are: told by who sends them or by their header, proven either way.

Pure: reads through `Data` alone. Nothing is taken for a disk on a guess; where neither sender nor
header says what it is, it is refused.
"""

from __future__ import annotations

import os

from vmkernel.model import Compression, ImageFormat, SourceFormat
from vmkernel.storage.archives import archive_of
from vmkernel.storage.foreign import VHD_COOKIE, Data, ForeignError, MemoryData, prove_foreign
from vmkernel.storage.headers import HEAD_BYTES, HeaderError, prove

__all__ = ["FileData", "InspectionError", "compression_of", "format_of", "prove_source"]

_COMPRESSIONS = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
)
_SKIPPABLE = b"\x2a\x4d\x18"
_UNPACK = "unpack it, and send the disk that is in it"
_MAGICS = (
    (0, b"QFI\xfb", SourceFormat.QCOW2),
    (0, b"KDMV", SourceFormat.VMDK),
    (0, b"COWD", SourceFormat.VMDK),
    (0, b"# Disk DescriptorFile", SourceFormat.VMDK),
    (0, b"vhdxfile", SourceFormat.VHDX),
    (0, VHD_COOKIE, SourceFormat.VHD),
    (0x40, b"\x7f\x10\xda\xbe", SourceFormat.VDI),
    (0, b"WithoutFreeSpace", SourceFormat.PARALLELS),
    (0, b"WithouFreSpacExt", SourceFormat.PARALLELS),
    (0x8001, b"CD001", SourceFormat.ISO),
    (0x8001, b"BEA01", SourceFormat.ISO),
    (0x202, b"HdrS", SourceFormat.LINUX_KERNEL),
    (0, b"\x7fELF", SourceFormat.LINUX_KERNEL),
    (0, b"07070", SourceFormat.LINUX_INITRD),
    (0x200, b"EFI PART", SourceFormat.RAW),
    (0x1FE, b"\x55\xaa", SourceFormat.RAW),
)
"""In this order: a hybrid ISO begins like a partitioned disk."""


class InspectionError(Exception):
    """The data can't be taken; the message says why."""


class FileData:
    """The bytes of an open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def size(self) -> int:
        """How many there are."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Some of them; fewer at the end."""
        return os.pread(self._fd, count, offset)


def compression_of(
    head: bytes, declared: Compression | None, source: SourceFormat | None
) -> Compression:
    """How data that begin with `head` are compressed; InspectionError where it is not as declared.

    An initrd is kept compressed, unless it is declared to be compressed once more.
    """
    found = _compression(head)
    if declared is None:
        return Compression.NONE if source is SourceFormat.LINUX_INITRD else found
    if declared is not Compression.NONE and declared is not found:
        what = archive_of(MemoryData(head), parts=True)
        but = f": they are {what}" if what else ""
        raise InspectionError(f"the data are not compressed by {declared}{but}")
    return declared


def _compression(head: bytes) -> Compression:
    """By its first member; zstd's and lz4's may be preceded by frames to be skipped."""
    at = 0
    while (skipped := head[at : at + 8])[1:4] == _SKIPPABLE and skipped[0] >> 4 == 5:
        if len(skipped) < 8:
            break
        at += 8 + int.from_bytes(skipped[4:], "little")
        if at >= len(head):
            return Compression.ZSTD  # lz4, which isn't unpacked, is told where it begins so
    return next((c for magic, c in _COMPRESSIONS if head.startswith(magic, at)), Compression.NONE)


def format_of(data: Data, declared: SourceFormat | None) -> SourceFormat:
    """What unpacked data are; InspectionError where nobody says it."""
    if declared is not None:
        return declared
    for offset, magic, source in _MAGICS:
        if data.read(offset, len(magic)) == magic:
            return source
        if source is SourceFormat.PARALLELS and _ends_like_vhd(data):
            return SourceFormat.VHD
    if what := archive_of(data):
        raise InspectionError(f"it is {what}; {_UNPACK}")
    raise InspectionError("the header does not tell what it is; name the format")


def prove_source(source: SourceFormat, data: Data) -> int:
    """The virtual size of unpacked data of that format; InspectionError where they aren't."""
    try:
        if source is not SourceFormat.LINUX_INITRD and (what := archive_of(data)):
            raise InspectionError(f"it is {what}; {_UNPACK}")
        if source.converted:
            return prove_foreign(source, data)
        return prove(ImageFormat(source.value), data.read(0, HEAD_BYTES), data.size)
    except (ForeignError, HeaderError) as error:
        raise InspectionError(str(error)) from error


def _ends_like_vhd(data: Data) -> bool:
    return data.size >= 1024 and data.read(data.size - 512, 8) == VHD_COOKIE
