"""Files as people upload them, made here."""

from __future__ import annotations

import struct

__all__ = ["bzimage", "elf", "iso", "qcow2"]


def iso(size: int = 1 << 16) -> bytes:
    """The beginning of an ISO 9660 image."""
    data = bytearray(size)
    data[0x8001:0x8006] = b"CD001"
    return bytes(data)


def qcow2(
    *,
    version: int = 3,
    size: int = 1 << 26,
    backing: int = 0,
    backing_name: str = "",
    crypt: int = 0,
    cluster_bits: int = 16,
    incompatible: int = 0,
    l1_entries: int | None = None,
    extensions: bytes = bytes(8),
) -> bytes:
    """A qcow2 header and zeros behind its L1 table."""
    cluster = 1 << cluster_bits
    if backing_name:
        backing = 512
    if l1_entries is None:
        l1_entries = -(-size // (cluster * (cluster // 8)))
    head = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        backing,
        len(backing_name) or (7 if backing else 0),
        cluster_bits,
        size,
        crypt,
        l1_entries,
        3 * cluster,
        cluster,
        1,
        0,
        0,
    )
    if version == 3:
        head += struct.pack(">QQQII", incompatible, 0, 0, 4, 104)
    data = (head + extensions).ljust(512, b"\0") + backing_name.encode()
    return data.ljust(4 * cluster, b"\0")


def bzimage(size: int = 4096) -> bytes:
    """The beginning of a bzImage."""
    data = bytearray(size)
    data[0x1FE:0x200] = b"\x55\xaa"
    data[0x202:0x206] = b"HdrS"
    return bytes(data)


def elf(machine: int = 62, bits: int = 2) -> bytes:
    """The beginning of an ELF executable."""
    return b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + struct.pack("<HH", 2, machine) + bytes(200)
