"""Headers of foreign disks: what is one whole file is taken, what names others is named."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.storage.samples import iso, qcow2
from vmkernel.model import Compression, SourceFormat
from vmkernel.storage.foreign import ForeignError, MemoryData, prove_foreign
from vmkernel.storage.inspection import (
    InspectionError,
    compression_of,
    format_of,
    prove_source,
)

MIB = 1 << 20
PARENT = b"a parent"


def vmdk(*, capacity: int = 2048, text: bytes = b"", gd: int = 1) -> bytes:
    """A sparse VMDK with a descriptor behind its header."""
    header = struct.pack(
        "<4sIIQQQQIQQQBcccc",
        *(b"KDMV", 1, 3, capacity, 128, 1, 20, 512, 1, gd, 128, 0, b"\n", b" ", b"\r", b"\n"),
    )
    descriptor = b'# Disk DescriptorFile\ncreateType="monolithicSparse"\n' + text
    return header.ljust(512, b"\0") + descriptor.ljust(20 * 512, b"\0") + bytes(4096)


def vhd(*, kind: int = 3, size: int = MIB) -> bytes:
    """A VHD footer alone."""
    raw = bytearray(512)
    struct.pack_into(
        ">8sIIQI4sI4sQQHBBI",
        raw,
        0,
        *(b"conectix", 2, 0x10000, 512, 0, b"win ", 0, b"Wi2k", size, size, 1, 1, 1, kind),
    )
    struct.pack_into(">I", raw, 64, ~sum(raw) & 0xFFFFFFFF)
    return bytes(raw)


def vdi(*, kind: int = 1, parent: bytes = bytes(32)) -> bytes:
    """A VDI header."""
    raw = bytearray(1024)
    struct.pack_into("<IIII", raw, 0x40, 0xBEDA107F, 0x10001, 400, kind)
    struct.pack_into("<Q", raw, 0x170, MIB)
    raw[0x1A8 : 0x1A8 + 32] = parent
    return bytes(raw)


def vhdx(*, flags: int = 0, parent: bool = False, log: str = "") -> bytes:
    """A VHDX with headers, a region table and metadata; `log` is how its log is."""
    import uuid

    def guid(text: str) -> bytes:
        return uuid.UUID(text).bytes_le

    raw = bytearray(2 * MIB)
    raw[:8] = b"vhdxfile"
    used = b"L" * 16 if log else bytes(16)
    for at, number, now in ((64 << 10, 7, used), (128 << 10, 6, b"O" * 16)):
        head = (b"head", 0, number, bytes(16), bytes(16), now, 0, 1, MIB, 512 << 10)
        struct.pack_into("<4sIQ16s16s16sHHIQ", raw, at, *head)
    if log:
        of = used if log == "to be replayed" else b"P" * 16
        struct.pack_into("<4sIIIQII16s", raw, (512 << 10) + 8192, b"loge", 0, 4096, 0, 1, 0, 0, of)
    struct.pack_into("<4sIII", raw, 192 << 10, b"regi", 0, 1, 0)
    entry = (guid("8b7ca206-4790-4b9a-b8fe-575f050f886e"), MIB, MIB, 1)
    struct.pack_into("<16sQII", raw, (192 << 10) + 16, *entry)
    items = [
        (guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b"), struct.pack("<II", 1 << 25, flags)),
        (guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8"), struct.pack("<Q", 3 * MIB)),
    ]
    if parent:
        items.append((guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"), PARENT))
    struct.pack_into("<8sHH", raw, MIB, b"metadata", 0, len(items))
    for number, (kind, value) in enumerate(items):
        offset = (64 << 10) + 64 * number
        struct.pack_into("<16sIII", raw, MIB + 32 + 32 * number, kind, offset, len(value), 0)
        raw[MIB + offset : MIB + offset + len(value)] = value
    return bytes(raw)


def parallels(*, magic: bytes = b"WithouFreSpacExt") -> bytes:
    """A Parallels header."""
    return struct.pack("<16sIIIIIQ", magic, 2, 16, 1, 63, 1, 2048).ljust(64, b"\0")


GOOD = [
    (SourceFormat.VMDK, vmdk(), MIB),
    (SourceFormat.VHD, vhd() + bytes(2048), MIB),
    (SourceFormat.VHD, bytes(MIB) + vhd(kind=2), MIB),
    (SourceFormat.VHDX, vhdx(), 3 * MIB),
    (SourceFormat.VHDX, vhdx(log="of before"), 3 * MIB),
    (SourceFormat.VDI, vdi(), MIB),
    (SourceFormat.PARALLELS, parallels(), MIB),
]


@pytest.mark.parametrize(("source", "data", "size"), GOOD)
def test_whole_disks_are_found_and_taken(source: SourceFormat, data: bytes, size: int) -> None:
    assert format_of(MemoryData(data), None) is source
    assert prove_source(source, MemoryData(data)) == size


BAD = [
    (SourceFormat.VMDK, vmdk(capacity=0), "no capacity"),
    (SourceFormat.VMDK, vmdk(text=b'parentFileNameHint="/etc/x.vmdk"\n'), "/etc/x.vmdk"),
    (SourceFormat.VMDK, vmdk(text=b'createType="x"\n').replace(b"monolithicS", b"vmfsThinXXX"), ""),
    (SourceFormat.VMDK, vmdk(text=b'RW 9 SPARSE "a"\nRW 9 SPARSE "/b"\n'), "'/b'"),
    (SourceFormat.VMDK, vmdk(gd=(1 << 64) - 1), "does not begin"),
    (SourceFormat.VMDK, b'# Disk DescriptorFile\nRW 4 FLAT "/dev/sda" 0\n', "/dev/sda"),
    (SourceFormat.VMDK, b"COWD" + bytes(99), "COWD"),
    (SourceFormat.VHD, vhd(kind=4), "differencing"),
    (SourceFormat.VHD, vhd()[:100] + b"x" + vhd()[101:], "checksum"),
    (SourceFormat.VHD, bytes(4096), "neither"),
    (SourceFormat.VHDX, vhdx(flags=2), "differencing"),
    (SourceFormat.VHDX, vhdx(parent=True), "differencing"),
    (SourceFormat.VHDX, b"vhdxfile" + bytes(MIB), "headers are damaged"),
    (SourceFormat.VHDX, vhdx().replace(b"regi", b"rege"), "no metadata"),
    (SourceFormat.VHDX, vhdx(log="to be replayed"), "its log holds changes"),
    (SourceFormat.VDI, vdi(kind=4), "differencing"),
    (SourceFormat.VDI, vdi(parent=b"x" * 32), "differencing"),
    (SourceFormat.PARALLELS, b"<?xml version='1.0'?>", ".hds"),
    (SourceFormat.PARALLELS, parallels(magic=b"WithoutFreeSpacX"), "does not begin"),
]


@pytest.mark.parametrize(("source", "data", "words"), BAD)
def test_what_needs_other_files_or_is_broken(source: SourceFormat, data: bytes, words: str) -> None:
    with pytest.raises(ForeignError) as refused:
        prove_foreign(source, MemoryData(data))
    assert words in str(refused.value)


@given(st.sampled_from([data[:4096] for _, data, _ in GOOD]), st.binary(max_size=64), st.data())
def test_no_header_does_more_than_be_refused(
    good: bytes, noise: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(good)))
    changed = MemoryData(good[:at] + noise + good[at + len(noise) :])
    for source in SourceFormat:
        if source.converted:
            try:
                size = prove_foreign(source, changed)
            except ForeignError:
                continue
            assert 0 < size <= 1 << 50


def test_formats_are_told_by_headers_or_not_at_all() -> None:
    partitioned = bytes(510) + b"\x55\xaa" + bytes(4096)
    hybrid = partitioned[:512] + iso()[512:]
    for data, source in (
        (iso(), SourceFormat.ISO),
        (hybrid, SourceFormat.ISO),
        (qcow2(), SourceFormat.QCOW2),
        (partitioned, SourceFormat.RAW),
        (b"070701" + bytes(99), SourceFormat.LINUX_INITRD),
    ):
        assert format_of(MemoryData(data), None) is source
    assert format_of(MemoryData(qcow2()), SourceFormat.VDI) is SourceFormat.VDI
    with pytest.raises(InspectionError, match="name the format"):
        format_of(MemoryData(bytes(4096)), None)
    with pytest.raises(InspectionError, match="does not begin"):
        prove_source(SourceFormat.VDI, MemoryData(qcow2()))


def test_compressions() -> None:
    gzip = b"\x1f\x8b\x08\0"
    assert compression_of(gzip, None, None) is Compression.GZIP
    assert compression_of(b"\xfd7zXZ\0", None, SourceFormat.RAW) is Compression.XZ
    assert compression_of(gzip, None, SourceFormat.LINUX_INITRD) is Compression.NONE
    assert compression_of(gzip, Compression.NONE, None) is Compression.NONE
    assert compression_of(b"\x28\xb5\x2f\xfd", Compression.ZSTD, None) is Compression.ZSTD
    with pytest.raises(InspectionError, match="not compressed by xz"):
        compression_of(gzip, Compression.XZ, None)
