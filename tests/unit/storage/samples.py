"""Files as people upload them, made here."""

from __future__ import annotations

import struct
import uuid

__all__ = [
    "bzimage",
    "elf",
    "iso",
    "parallels",
    "qcow2",
    "qed",
    "stream_vmdk",
    "vdi",
    "vhd",
    "vhdx",
    "vmdk",
]

MIB = 1 << 20


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


EXTENT = b'RW 2048 SPARSE "disk.vmdk"\n'


def vmdk(
    *, capacity: int = 2048, text: bytes = EXTENT, gd: int = 1, kind: bytes = b"monolithicSparse"
) -> bytes:
    """A sparse VMDK with a descriptor behind its header."""
    header = _vmdk_header(capacity, gd)
    descriptor = b'# Disk DescriptorFile\ncreateType="' + kind + b'"\n' + text
    return header + descriptor.ljust(20 * 512, b"\0") + bytes(4096)


def stream_vmdk(*, capacity: int = 2048, footer_capacity: int | None = None) -> bytes:
    """A VMDK whose footer says where its tables are."""
    footer = _vmdk_header(footer_capacity or capacity, 21)
    marker = struct.pack("<QII", 1, 0, 3).ljust(512, b"\0")
    whole = vmdk(capacity=capacity, gd=(1 << 64) - 1, kind=b"streamOptimized")
    return whole + marker + footer + bytes(512)


def _vmdk_header(capacity: int, gd: int) -> bytes:
    header = struct.pack(
        "<4sIIQQQQIQQQBcccc",
        *(b"KDMV", 1, 3, capacity, 128, 1, 20, 512, 1, gd, 128, 0, b"\n", b" ", b"\r", b"\n"),
    )
    return header.ljust(512, b"\0")


def vhd(*, kind: int = 3, size: int = MIB, original: int | None = None) -> bytes:
    """A VHD footer alone."""
    raw = bytearray(512)
    struct.pack_into(
        ">8sIIQI4sI4sQQHBBI",
        raw,
        0,
        *(
            b"conectix",
            2,
            0x10000,
            512,
            0,
            b"win ",
            0,
            b"Wi2k",
            original or size,
            size,
            1,
            1,
            1,
            kind,
        ),
    )
    struct.pack_into(">I", raw, 64, ~sum(raw) & 0xFFFFFFFF)
    return bytes(raw)


def vdi(*, kind: int = 1, parent: bytes = bytes(32), blocks: int = 0) -> bytes:
    """A VDI header."""
    raw = bytearray(1024)
    struct.pack_into("<IIII", raw, 0x40, 0xBEDA107F, 0x10001, 400, kind)
    struct.pack_into("<Q", raw, 0x170, MIB)
    struct.pack_into("<IIII", raw, 0x178, MIB, 0, 1, blocks)
    raw[0x1A8 : 0x1A8 + 32] = parent
    return bytes(raw)


def _guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


def vhdx(*, flags: int = 0, parent: bool = False, log: str = "", log_bytes: int = MIB) -> bytes:
    """A VHDX with headers, a region table and metadata; `log` is how its log is."""
    raw = bytearray(2 * MIB)
    raw[:8] = b"vhdxfile"
    used = b"L" * 16 if log else bytes(16)
    for at, number, now in ((64 << 10, 7, used), (128 << 10, 6, b"O" * 16)):
        head = (b"head", 0, number, bytes(16), bytes(16), now, 0, 1, log_bytes, 512 << 10)
        struct.pack_into("<4sIQ16s16s16sHHIQ", raw, at, *head)
    if log:
        of = used if log == "to be replayed" else b"P" * 16
        struct.pack_into("<4sIIIQII16s", raw, (512 << 10) + 8192, b"loge", 0, 4096, 0, 1, 0, 0, of)
    struct.pack_into("<4sIII", raw, 192 << 10, b"regi", 0, 1, 0)
    entry = (_guid("8b7ca206-4790-4b9a-b8fe-575f050f886e"), MIB, MIB, 1)
    struct.pack_into("<16sQII", raw, (192 << 10) + 16, *entry)
    items = [
        (_guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b"), struct.pack("<II", 1 << 25, flags)),
        (_guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8"), struct.pack("<Q", 3 * MIB)),
    ]
    if parent:
        items.append((_guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"), b"a parent"))
    struct.pack_into("<8sHH", raw, MIB, b"metadata", 0, len(items))
    for number, (kind, value) in enumerate(items):
        offset = (64 << 10) + 64 * number
        struct.pack_into("<16sIII", raw, MIB + 32 + 32 * number, kind, offset, len(value), 0)
        raw[MIB + offset : MIB + offset + len(value)] = value
    return bytes(raw)


def parallels(*, magic: bytes = b"WithouFreSpacExt", cluster: int = 0) -> bytes:
    """A Parallels header, and where its one cluster is."""
    header = struct.pack("<16sIIIIIQ", magic, 2, 16, 1, 63, 1, 2048).ljust(64, b"\0")
    return header + struct.pack("<I", cluster)


def qed(*, size: int = MIB) -> bytes:
    """A QED header."""
    fields = (b"QED\0", 4096, 2, 1, 0, 0, 0, 4096, size, 0, 0)
    return struct.pack("<4sIIIQQQQQII", *fields).ljust(1024, b"\0")
