"""Headers of disks: what is one whole file is taken, what names others is named."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.storage.samples import iso, parallels, qcow2, qed, stream_vmdk, vdi, vhd, vhdx, vmdk
from vmkernel.model import Compression, SourceFormat
from vmkernel.storage.formats import inspection
from vmkernel.storage.formats.base import FormatError, MemoryData
from vmkernel.storage.formats.compressions import PACKINGS
from vmkernel.storage.formats.inspection import (
    compression_of,
    format_of,
    verify_source,
)
from vmkernel.storage.formats.registry import FORMATS, format_of_source

MIB = 1 << 20


GOOD = [
    (SourceFormat.VMDK, vmdk(), MIB),
    (SourceFormat.VMDK, stream_vmdk(), MIB),
    (SourceFormat.VHD, vhd() + bytes(2048), MIB),
    (SourceFormat.VHD, bytes(MIB) + vhd(kind=2), MIB),
    (SourceFormat.VHDX, vhdx(), 3 * MIB),
    (SourceFormat.VHDX, vhdx(log="of before"), 3 * MIB),
    (SourceFormat.VHDX, vhdx(log="to be replayed"), 3 * MIB),
    (SourceFormat.VDI, vdi(), MIB),
    (SourceFormat.PARALLELS, parallels(), MIB),
    (SourceFormat.PARALLELS, parallels(cluster=2) + bytes(3 * 63 * 512 - 68), MIB),
    (SourceFormat.VDI, vdi(blocks=1) + bytes(MIB - 1024), MIB),
]


@pytest.mark.parametrize(("source", "data", "size"), GOOD)
def test_whole_disks_are_found_and_taken(source: SourceFormat, data: bytes, size: int) -> None:
    assert format_of(MemoryData(data), None) is source
    assert verify_source(source, MemoryData(data)) == size


BAD = [
    (SourceFormat.VMDK, vmdk(capacity=0), "no capacity"),
    (SourceFormat.VMDK, vmdk(text=b'parentFileNameHint="/etc/x.vmdk"\n'), "/etc/x.vmdk"),
    (SourceFormat.VMDK, vmdk(text=b'createType="x"\n').replace(b"monolithicS", b"vmfsThinXXX"), ""),
    (SourceFormat.VMDK, vmdk(text=b'RW 9 SPARSE "a"\nRW 9 SPARSE "/b"\n'), "'/b'"),
    (SourceFormat.VMDK, vmdk().replace(b"createType", b"x"), "one of the files of a disk"),
    (SourceFormat.VMDK, vmdk(gd=(1 << 64) - 1), "cut off"),
    (SourceFormat.VMDK, stream_vmdk()[:-512], "cut off"),
    (SourceFormat.VMDK, stream_vmdk(footer_capacity=4096), "different things"),
    (SourceFormat.VMDK, stream_vmdk().replace((21).to_bytes(8, "little"), b"\xff" * 8), "another"),
    (SourceFormat.VMDK, vmdk(text=b""), "names no data"),
    (SourceFormat.VMDK, vmdk(text=b'RW 9 SPARSE "/etc/a"\n'), "'/etc/a'"),
    (SourceFormat.VMDK, b'# Disk DescriptorFile\nRW 4 FLAT "/dev/sda" 0\n', "/dev/sda"),
    (SourceFormat.VMDK, b"COWD" + bytes(99), "COWD"),
    (SourceFormat.VHD, vhd(kind=4), "differencing"),
    (SourceFormat.VHD, vhd()[:100] + b"x" + vhd()[101:], "checksum"),
    (SourceFormat.VHD, bytes(4096), "neither"),
    (SourceFormat.VHDX, vhdx(flags=2), "differencing"),
    (SourceFormat.VHDX, vhdx(parent=True), "differencing"),
    (SourceFormat.VHDX, vhdx().replace(b"head", b"hexd"), "headers are damaged"),
    (SourceFormat.VHDX, vhdx().replace(b"regi", b"rege"), "no metadata"),
    (SourceFormat.VHDX, vhdx(log="to be replayed", log_bytes=257 * MIB), "more than 256 MiB"),
    (SourceFormat.VDI, vdi(kind=4), "differencing"),
    (SourceFormat.VDI, vdi(parent=b"x" * 32), "differencing"),
    (SourceFormat.VDI, vdi(blocks=1) + bytes(MIB - 1025), "cut off"),
    (SourceFormat.PARALLELS, parallels(cluster=2) + bytes(3 * 63 * 512 - 69), "cut off"),
    (SourceFormat.PARALLELS, b"<?xml version='1.0'?>", ".hds"),
    (SourceFormat.PARALLELS, parallels(magic=b"WithoutFreeSpacX"), "does not begin"),
]


@pytest.mark.parametrize(("source", "data", "words"), BAD)
def test_what_needs_other_files_or_is_broken(source: SourceFormat, data: bytes, words: str) -> None:
    with pytest.raises(FormatError) as refused:
        verify_source(source, MemoryData(data))
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
                size = verify_source(source, changed)
            except FormatError:
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
    with pytest.raises(FormatError, match="set the format"):
        format_of(MemoryData(bytes(4096)), None)
    with pytest.raises(FormatError, match="does not begin"):
        verify_source(SourceFormat.VDI, MemoryData(qcow2()))


def test_only_a_log_in_use_is_to_be_replayed() -> None:
    item = format_of_source(SourceFormat.VHDX)
    for log, pending in (("", 0), ("of before", 0), ("to be replayed", MIB)):
        assert item.pending_bytes(MemoryData(vhdx(log=log))) == pending
    assert not any(
        format_of_source(source).pending_bytes(MemoryData(data))
        for source, data, _ in GOOD
        if source is not SourceFormat.VHDX
    )


# --- the registry -------------------------------------------------------------------------------


def test_every_format_that_the_api_names_is_registered_once() -> None:
    sources = [item.source for item in FORMATS if item.source is not None]
    assert sorted(sources) == sorted(SourceFormat)
    names = [item.qemu_name for item in FORMATS if item.qemu_name is not None]
    assert len(set(names)) == len(names)
    kinds = [item.kind for item in PACKINGS if item.kind is not None]
    assert sorted(kinds) == sorted(set(Compression) - {Compression.NONE})
    for item in FORMATS:
        assert item.magics
        assert item.noun.startswith(("a ", "an "))
        assert item.source is not None or item.advice, f"{item.noun}: refused, and nothing to do"
        if item.source is not None and item.source.converted:
            assert item.qemu_name is not None


def test_what_looks_like_two_formats_is_neither_on_a_guess() -> None:
    for first, second in ((qcow2(), vhd(kind=2)), (vmdk(), vhd(kind=2))):
        both = first + second
        with pytest.raises(FormatError, match=r"looks like .*a VHD file.*; set"):
            format_of(MemoryData(both), None)
        assert verify_source(SourceFormat.VHD, MemoryData(both)) == MIB


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_registry_means_nothing(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    mixed = random.Random(seed).sample(FORMATS, len(FORMATS))
    monkeypatch.setattr(inspection, "FORMATS", tuple(mixed))
    test_formats_are_told_by_headers_or_not_at_all()
    for source, data, _ in GOOD:
        assert format_of(MemoryData(data), None) is source


def test_what_is_known_and_not_taken_is_named_with_what_to_do() -> None:
    with pytest.raises(FormatError, match="a QED file; convert it"):
        format_of(MemoryData(qed()), None)
    with pytest.raises(FormatError, match="a QED file, not a raw disk"):
        verify_source(SourceFormat.RAW, MemoryData(qed()))
    luks = b"LUKS\xba\xbe\0\2" + bytes(4096)
    with pytest.raises(FormatError, match="encrypted by LUKS; decrypt it first"):
        format_of(MemoryData(luks), None)
    assert verify_source(SourceFormat.RAW, MemoryData(luks)) == -(-len(luks) // 512) * 512


def test_reading_a_header_loads_no_service() -> None:
    code = (
        "import sys, vmkernel.storage.formats.inspection;"
        "print(*sorted(n for n in sys.modules if n.startswith('vmkernel.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60
    )
    loaded = {name for name in done.stdout.split() if not name.startswith("vmkernel.model")}
    assert {name for name in loaded if not name.startswith("vmkernel.storage.formats")} <= {
        "vmkernel.storage",
        "vmkernel.storage.images",
        "vmkernel.text",
    }


def test_compressions() -> None:
    gzip = b"\x1f\x8b\x08\0"
    assert compression_of(gzip, None, None) is Compression.GZIP
    assert compression_of(b"\xfd7zXZ\0", None, SourceFormat.RAW) is Compression.XZ
    assert compression_of(gzip, None, SourceFormat.LINUX_INITRD) is Compression.NONE
    assert compression_of(gzip, Compression.NONE, None) is Compression.NONE
    assert compression_of(b"\x28\xb5\x2f\xfd", Compression.ZSTD, None) is Compression.ZSTD
    with pytest.raises(FormatError, match="not compressed by xz"):
        compression_of(gzip, Compression.XZ, None)
