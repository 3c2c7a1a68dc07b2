"""Uploaded files must be what they are declared to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.storage.samples import bzimage, elf, iso, qcow2
from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import HEAD_BYTES, FormatError, MemoryData
from vmkernel.storage.formats.inspection import verify_source
from vmkernel.storage.formats.qcow2 import read_header

F = SourceFormat


class _Head(MemoryData):
    """The beginning of a longer file."""

    def __init__(self, head: bytes, size: int) -> None:
        super().__init__(head)
        self._size = size

    @property
    def size(self) -> int:
        return self._size


def verify(source: SourceFormat, head: bytes, size: int) -> int:
    return verify_source(source, _Head(head, size))


@pytest.mark.parametrize(
    ("image_format", "head", "size", "virtual"),
    [
        (F.ISO, iso(), 700_000_000, 700_000_256),
        (F.QCOW2, qcow2(), 200_000, 1 << 26),
        (F.QCOW2, qcow2(version=2), 200_000, 1 << 26),
        (F.RAW, bytes(1000), 1000, 1024),
        (F.RAW, iso(), 1 << 20, 1 << 20),
        (F.LINUX_KERNEL, bzimage(), 4096, 4096),
        (F.LINUX_KERNEL, elf(), 4096, 4096),
        (F.LINUX_INITRD, b"070701" + bytes(100), 106, 106),
        (F.LINUX_INITRD, b"\x28\xb5\x2f\xfd" + bytes(100), 104, 104),
        (F.LINUX_INITRD, b"\x1f\x8b\x08" + bytes(100), 103, 103),
    ],
)
def test_what_is_right_is_taken(
    image_format: SourceFormat, head: bytes, size: int, virtual: int
) -> None:
    assert verify(image_format, head, size) == virtual


@pytest.mark.parametrize(
    ("image_format", "head", "reason"),
    [
        (F.ISO, bytes(1 << 16), "ISO 9660"),
        (F.ISO, b"\0" + 10 * b"\xff" + b"\0" + bytes(4096), "2,352"),
        (F.ISO, b"CD001", "ISO 9660"),
        (F.QCOW2, b"", "does not begin"),
        (F.QCOW2, iso(), "does not begin"),
        (F.QCOW2, qcow2()[:50], "cut off"),
        (F.RAW, qcow2(), "qcow2 file"),
        (F.RAW, b"KDMV" + bytes(600), "VMDK"),
        (F.RAW, bytes(0x40) + b"\x7f\x10\xda\xbe" + bytes(600), "VDI"),
        (F.RAW, b"\xfd7zXZ\x00" + bytes(600), "compressed"),
        (F.LINUX_KERNEL, bytes(4096), "neither"),
        (F.LINUX_KERNEL, elf(machine=183), "another architecture"),
        (F.LINUX_KERNEL, elf(bits=1), "64-bit"),
        (F.LINUX_KERNEL, b"\x7fELF\x02\x01", "64-bit"),
        (F.LINUX_INITRD, bzimage(), "neither"),
        (F.LINUX_INITRD, b"", "neither"),
    ],
)
def test_what_is_wrong_is_refused_with_a_reason(
    image_format: SourceFormat, head: bytes, reason: str
) -> None:
    with pytest.raises(FormatError, match=reason):
        verify(image_format, head, max(1, len(head)))


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (qcow2(backing=512), "backing file"),
        (qcow2(crypt=2), "encrypted"),
        (qcow2(version=4), "version 4"),
        (qcow2(cluster_bits=8, l1_entries=1), "clusters"),
        (qcow2(incompatible=1 << 2), "another file"),
        (qcow2(incompatible=1 << 1), "corrupt"),
        (qcow2(incompatible=1 << 9), "not known"),
        (qcow2(size=0), "not possible"),
        (qcow2(l1_entries=0), "too small"),
        (qcow2(l1_entries=1 << 31), "L1 table"),
        (qcow2(extensions=b"DATA" + (8).to_bytes(4, "big") + b"/etc/pwd"), "another file"),
        (qcow2(extensions=b"????" + b"\x7f\xff\xff\xff"), "don't end"),
    ],
)
def test_a_qcow2_may_not_reach_for_other_files(head: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        read_header(head)


def test_our_own_linked_ones_name_what_they_stand_on() -> None:
    linked = qcow2(backing_name="base.raw")
    assert read_header(linked, may_be_linked=True).backing_file == "base.raw"
    assert read_header(qcow2(), may_be_linked=True).backing_file is None
    with pytest.raises(FormatError, match="backing file"):
        read_header(linked)
    with pytest.raises(FormatError, match="not where one can be"):
        read_header(qcow2(backing=1 << 40), may_be_linked=True)


def test_a_file_that_was_cut_off_is_told_by_its_tables() -> None:
    whole = qcow2()
    assert read_header(whole, file_bytes=len(whole))
    with pytest.raises(FormatError, match="cut off"):
        read_header(whole, file_bytes=1 << 16)


@given(st.sampled_from(list(SourceFormat)), st.binary(max_size=2000))
def test_noise_is_refused_and_never_more_than_that(
    image_format: SourceFormat, noise: bytes
) -> None:
    try:
        virtual = verify(image_format, noise[:HEAD_BYTES], max(1, len(noise)))
    except FormatError:
        return
    assert virtual > 0


@given(st.data())
def test_a_damaged_qcow2_header_is_refused_or_still_sane(data: st.DataObject) -> None:
    head = bytearray(qcow2())
    for _ in range(data.draw(st.integers(1, 4))):
        head[data.draw(st.integers(4, 111))] = data.draw(st.integers(0, 255))
    try:
        header = read_header(bytes(head))
    except FormatError:
        return
    assert 0 < header.virtual_size_bytes <= 1 << 50
