"""Our readers of image headers against oslo.utils' inspector, over made and broken images."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.framework.image_oracle import DIFFERENCES, differences, oracle, ours
from tests.unit.storage.samples import (
    iso,
    parallels,
    qcow2,
    qed,
    stream_vmdk,
    vdi,
    vhd,
    vhdx,
    vmdk,
)

MIB = 1 << 20
sizes = st.integers(1, 1 << 30).map(lambda sectors: sectors * 512)


def _luks(version: int = 1) -> bytes:
    header = struct.pack(">6sH32s32s32sI", b"LUKS\xba\xbe", version, b"aes", b"xts", b"sha256", 4)
    return header.ljust(8192, b"\0")


def _partitioned() -> bytes:
    data = bytearray(8192)
    data[446:462] = struct.pack("<B3sB3sII", 0x80, b"\0\2\0", 0x83, b"\0\0\0", 1, 15)
    data[510:512] = b"\x55\xaa"
    return bytes(data)


def _changed(image: bytes, *changes: tuple[int, bytes]) -> bytes:
    data = bytearray(image)
    for at, value in changes:
        data[at : at + len(value)] = value
    return bytes(data)


IMAGES: dict[str, tuple[st.SearchStrategy[bytes], tuple[int, ...]]] = {
    "qcow2": (
        st.builds(qcow2, version=st.sampled_from([2, 3]), size=sizes, cluster_bits=st.just(16)),
        (0, 4, 8, 16, 20, 24, 32, 36, 40, 48, 72, 79, 80, 96, 100, 104, 112),
    ),
    "vmdk": (
        st.builds(vmdk, capacity=st.integers(1, 1 << 40)),
        (0, 4, 8, 12, 20, 28, 36, 44, 56, 512, 540, 560),
    ),
    "stream vmdk": (
        st.builds(stream_vmdk, capacity=st.integers(1, 1 << 40)),
        (0, 4, 12, 28, 56, -1536, -1528, -1524, -1024, -1020, -1012, -996, -968, -512, -1),
    ),
    "vhd": (st.builds(vhd, size=sizes).map(lambda head: head + bytes(2048)), (0, 4, 56, 60, 64)),
    "vhdx": (
        st.builds(vhdx, flags=st.sampled_from([0, 1])),
        (0, 64 << 10, 128 << 10, 192 << 10, (192 << 10) + 8, (192 << 10) + 16, MIB, MIB + 10),
    ),
    "vdi": (st.builds(vdi), (0x40, 0x44, 0x4C, 0x170, 0x1A8)),
    "qed": (st.builds(qed, size=sizes), (0, 4, 48)),
    "iso": (st.builds(iso), (0, 0x1FE, 0x8000, 0x8001, 0x8050, 0x8080)),
    "luks": (st.builds(_luks, st.sampled_from([1, 2])), (0, 6, 104)),
    "raw": (st.binary(min_size=512, max_size=4096), (0, 0x40, 0x1FE, 0x200)),
    "partitioned": (st.just(_partitioned()), (0, 446, 450, 510, 512)),
    "parallels": (st.builds(parallels).map(lambda head: head + bytes(2048)), (0, 16, 36)),
}
"""How images are made, and where their headers say what matters."""


@pytest.mark.parametrize("name", IMAGES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_made_and_broken_images_are_judged_alike(name: str, data: st.DataObject) -> None:
    made, places = IMAGES[name]
    image = bytearray(data.draw(made))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.sampled_from(places)) % len(image)
        noise = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from(MAGICS))
        image[at : at + len(noise)] = noise
    assert differences(bytes(image)) == []


MAGICS = [b"QFI\xfb", b"KDMV", b"conectix", b"vhdxfile", b"QED\0", b"CD001", b"LUKS\xba\xbe"]


@pytest.mark.parametrize(
    ("name", "image", "size"),
    [
        ("qcow2", qcow2(size=1 << 30), 1 << 30),
        ("vmdk", vmdk(capacity=4096), 2 * MIB),
        ("vmdk", stream_vmdk(), MIB),
        ("vhd", vhd() + bytes(2048), MIB),
        ("vhdx", vhdx(), 3 * MIB),
        ("vdi", vdi(), MIB),
        ("raw", _partitioned(), 8192),
    ],
)
def test_whole_images_are_the_same_to_both(name: str, image: bytes, size: int) -> None:
    """So that the comparison compares: both take them, with one size."""
    assert (oracle(image).format, oracle(image).size_bytes, oracle(image).safe) == (
        name,
        size,
        True,
    )
    assert (ours(image).format, ours(image).size_bytes, ours(image).safe) == (name, size, True)


@pytest.mark.parametrize(
    "image",
    [
        qcow2(backing=512),
        qcow2(incompatible=1 << 2),
        qcow2(incompatible=1 << 9),
        vmdk(kind=b"monolithicFlat"),
        vmdk(text=b'RW 9 SPARSE "/etc/shadow"\n'),
        vmdk(text=b""),
        _changed(vmdk(), (512, b"\0")),
        stream_vmdk()[:-512],
        qed(),
        _luks(2),
    ],
)
def test_what_is_unsafe_to_the_inspector_is_refused_here(image: bytes) -> None:
    assert not oracle(image).safe
    assert not ours(image).safe


EXAMPLES = (
    _changed(qcow2(), (0x8001, b"CD001")),
    parallels() + bytes(2048),
    bytes(4096) + vhd(kind=2),
    vhd(original=2 * MIB) + bytes(2048),
    _changed(iso(), (0x8000, b"\1"), (0x8050, b"\1\0\0\0"), (0x8080, b"\0\x08")),
    _changed(iso(), (0x1FE, b"\x55\xaa")),
    _changed(iso(), (0x8001, b"BEA01")),
    iso()[: 33 << 10],
    bytes(510) + b"\x55\xaa" + bytes(512),
    qcow2(incompatible=1 << 4),
    _changed(qcow2(version=2), (72, b"\0\0\0\0\0\0\0\4")),
    vmdk(text=b'not known\nRW 2048 SPARSE "disk.vmdk"\n'),
    _changed(vmdk(), (28, (2).to_bytes(8, "little")), (36, (19).to_bytes(8, "little"))),
)
"""One for each of DIFFERENCES, in its order."""


@pytest.mark.parametrize("number", range(len(DIFFERENCES)))
def test_each_difference_on_the_list_is_one(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    image = EXAMPLES[number]
    assert differences(image) == []
    assert DIFFERENCES[number].applies(image, oracle(image), ours(image))
    monkeypatch.setattr("tests.framework.image_oracle.DIFFERENCES", ())
    assert differences(image) != [], DIFFERENCES[number].reason
