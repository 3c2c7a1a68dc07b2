"""Proving that an uploaded file is what it was declared to be; pure, by its first 64 KiB."""

from __future__ import annotations

import struct
from collections.abc import Callable

from vmkernel.model import ImageFormat
from vmkernel.storage.qcow2 import Qcow2Error, read_header

__all__ = ["HEAD_BYTES", "HeaderError", "prove"]

HEAD_BYTES = 1 << 16
_SECTOR_BYTES = 512
_CD_SECTOR_BYTES = 2048
_CD_SYNC = b"\0" + 10 * b"\xff" + b"\0"
"""Each sector of a raw dump begins so (ECMA-130 14.1)."""
_CD_SYSTEMS = (
    (0x8001, b"CD001"),  # ISO 9660 (ECMA-119 8.1.2), El Torito and bridges to others included
    (0x8001, b"BEA01"),  # UDF alone (ECMA-167 2/9.2)
    (0x400, b"BD"),  # HFS
    (0x400, b"H+"),
    (0x200, b"PM"),  # HFS behind a map of partitions
)
_HDRS_OFFSET = 0x202
_BOOT_FLAG_OFFSET = 0x1FE
_ELF_X86_64 = 62

_COMPRESSED: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_CONTAINERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"QFI\xfb", "a qcow2 file"),
    (0, b"KDMV", "a VMDK file"),
    (0, b"COWD", "a VMDK file"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
    (0, b"vhdxfile", "a VHDX file"),
    (0, b"conectix", "a VHD file"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI file"),
    (0, b"WithoutFreeSpace", "a Parallels disk"),
    (0, b"WithouFreSpacExt", "a Parallels disk"),
    (0, b"QED\x00", "a QED file"),
    (0, b"OTVA", "an OVA file"),
)
_INITRD_MAGICS = (
    b"070701",
    b"070702",
    b"\x1f\x8b",
    b"\xfd7zXZ\x00",
    b"\x28\xb5\x2f\xfd",
    b"\x02\x21\x4c\x18",
    b"\x5d\x00\x00",
    b"BZh",
    b"\x89LZO\x00",
)


class HeaderError(Exception):
    """The file is not what it was declared to be; the message says why."""


def prove(image_format: ImageFormat, head: bytes, size_bytes: int) -> int:
    """The virtual size of what the file holds; HeaderError where it isn't of that format.

    `head` is the first HEAD_BYTES of the file, or all of it where it is shorter.
    """
    return _PROOFS[image_format](head, size_bytes)


def _iso(head: bytes, size: int) -> int:
    if head.startswith(_CD_SYNC):
        raise HeaderError(
            "it is a dump of a CD with 2,352 bytes a sector; convert it to an ISO image"
        )
    if not any(head[at : at + len(magic)] == magic for at, magic in _CD_SYSTEMS):
        raise HeaderError("there is no file system of a CD in it (ISO 9660, UDF or HFS)")
    return -(-size // _CD_SECTOR_BYTES) * _CD_SECTOR_BYTES


def _qcow2(head: bytes, _: int) -> int:
    try:
        return read_header(head).virtual_size_bytes
    except Qcow2Error as error:
        raise HeaderError(str(error)) from error


def _raw(head: bytes, size: int) -> int:
    for offset, magic, name in _CONTAINERS:
        if head[offset : offset + len(magic)] == magic:
            raise HeaderError(f"it is {name}, not a raw disk")
    for magic, name in _COMPRESSED:
        if head.startswith(magic):
            raise HeaderError(f"it is compressed ({name}); unpack it first")
    return _sectors(size)


def _kernel(head: bytes, size: int) -> int:
    if head[:4] == b"\x7fELF":
        if len(head) < 20 or head[4:6] != b"\x02\x01":
            raise HeaderError("it is an ELF file, but not a 64-bit little-endian one")
        if struct.unpack_from("<H", head, 18)[0] != _ELF_X86_64:
            raise HeaderError("it is an ELF file for another processor")
        return size
    flag = head[_BOOT_FLAG_OFFSET : _BOOT_FLAG_OFFSET + 2]
    if flag == b"\x55\xaa" and head[_HDRS_OFFSET : _HDRS_OFFSET + 4] == b"HdrS":
        return size
    raise HeaderError("it is neither a bzImage nor an ELF vmlinux")


def _initrd(head: bytes, size: int) -> int:
    if not head.startswith(_INITRD_MAGICS):
        raise HeaderError("it is neither a cpio archive nor a compressed one")
    return size


def _sectors(size: int) -> int:
    return -(-size // _SECTOR_BYTES) * _SECTOR_BYTES


_PROOFS: dict[ImageFormat, Callable[[bytes, int], int]] = {
    ImageFormat.ISO: _iso,
    ImageFormat.QCOW2: _qcow2,
    ImageFormat.RAW: _raw,
    ImageFormat.LINUX_KERNEL: _kernel,
    ImageFormat.LINUX_INITRD: _initrd,
}
