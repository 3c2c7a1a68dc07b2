"""Unpacking gzip, xz, zstd and bzip2: whole, in several members, broken, too large."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.framework.web_server import stored_zstd
from vmkernel.model import Compression
from vmkernel.storage.formats.inspection import compression_of
from vmkernel.workers.report import Refusal, Report
from vmkernel.workers.unpack import DECODERS, unpack

MIB = 1 << 20
DATA = os.urandom(MIB + 5) + bytes(4 * MIB) + b"end"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": stored_zstd,
    "bzip2": bz2.compress,
}
TRAILING_IGNORED = ("gzip", "bzip2")


class _Silent(Report):
    def progress(self, done: int, total: int) -> None:
        """Nobody asks."""


def _unpack(tmp_path: Path, packed: bytes, name: str, limit: int = 1 << 30) -> bytes:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(packed)
    target.write_bytes(b"")
    with source.open("rb") as read, target.open("r+b") as write:
        size = unpack(read.fileno(), write.fileno(), name, limit, _Silent())
    made = target.read_bytes()
    assert size == len(made)
    return made


@pytest.mark.parametrize("name", PACKERS)
def test_members_become_one_file_with_holes(tmp_path: Path, name: str) -> None:
    pack = PACKERS[name]
    assert _unpack(tmp_path, pack(DATA), name) == DATA
    assert (tmp_path / "target").stat().st_blocks * 512 < 2 * MIB
    assert _unpack(tmp_path, pack(DATA[:MIB]) + pack(DATA[MIB:]), name) == DATA
    assert _unpack(tmp_path, pack(DATA) + bytes(512), name) == DATA


@pytest.mark.parametrize("name", PACKERS)
def test_broken_data(tmp_path: Path, name: str) -> None:
    packed = PACKERS[name](DATA)
    for wrong, code in (
        (packed[:-9], {"truncated"}),
        *(
            [(packed + b"garbage", {"invalid", "truncated"})]
            if name not in TRAILING_IGNORED
            else []
        ),
        (b"nothing of the kind", {"invalid", "truncated"}),
    ):
        with pytest.raises(Refusal) as refused:
            _unpack(tmp_path, wrong, name)
        assert refused.value.code in code


@pytest.mark.parametrize("name", PACKERS)
def test_no_more_comes_out_than_may(tmp_path: Path, name: str) -> None:
    assert _unpack(tmp_path, PACKERS[name](DATA), name, len(DATA)) == DATA
    with pytest.raises(Refusal) as refused:
        _unpack(tmp_path, PACKERS[name](DATA), name, len(DATA) - 1)
    assert refused.value.code == "insufficient-space"


# --- what the formats and the common tools allow ------------------------------------------------

PACKED = Path(__file__).parents[1] / "samples" / "packed"
PLAIN = (bytes(0x1FE) + b"\x55\xaa" + bytes(300_000) + b"Mica") * 4
_SUFFIXES = {".gz": "gzip", ".xz": "xz", ".zst": "zstd", ".bz2": "bzip2"}


@pytest.mark.parametrize(
    "file",
    [
        file.name
        for file in sorted(PACKED.iterdir())
        if file.suffix in _SUFFIXES and not file.name.startswith("cd-")
    ],
)
def test_what_real_tools_pack(tmp_path: Path, file: str) -> None:
    packed = (PACKED / file).read_bytes()
    name = _SUFFIXES[Path(file).suffix]
    assert compression_of(packed[:1024], None, None) is Compression(name)
    assert _unpack(tmp_path, packed, name) == PLAIN
    assert _unpack(tmp_path, packed + packed, name) == PLAIN + PLAIN
    assert _unpack(tmp_path, packed + bytes(1024) + packed, name) == PLAIN + PLAIN
    for cut in (len(packed) - 1, len(packed) // 2, 20):
        with pytest.raises(Refusal) as refused:
            _unpack(tmp_path, packed[:cut], name)
        assert refused.value.code == "truncated"


def test_every_compression_of_the_api_has_a_decoder() -> None:
    assert sorted(DECODERS) == sorted(set(Compression) - {Compression.NONE})


def test_a_bzip2_file_that_swells_stops_at_its_bound(tmp_path: Path) -> None:
    """45 octets make 900,000 zeros; memory stays at a block of them."""
    bomb = bz2.compress(bytes(45_000_000))
    assert len(bomb) < 100
    with pytest.raises(Refusal) as refused:
        _unpack(tmp_path, bomb * 1000, "bzip2", 16 * MIB)
    assert refused.value.code == "insufficient-space"


@pytest.mark.parametrize(
    "tail", [b"garbage", b"\x1f", b"\0\0\0junk", b"\x1e\x8b\x08", os.urandom(1 << 19), b"x" * 7]
)
def test_gzip_ignores_what_trails_as_gzip_does(tmp_path: Path, tail: bytes) -> None:
    packed = gzip.compress(DATA)
    assert _unpack(tmp_path, packed + tail, "gzip") == DATA
    # So does bzip2(1): "trailing garbage after EOF ignored".
    assert _unpack(tmp_path, bz2.compress(DATA) + tail, "bzip2") == DATA
    (tmp_path / "x.gz").write_bytes(packed + tail)
    done = subprocess.run(
        ["gzip", "-dc", tmp_path / "x.gz"], capture_output=True, check=False, timeout=60
    )
    assert done.returncode in (0, 2) or len(tail) == 1  # 2: a warning
    assert done.stdout == DATA


def test_gzip_with_all_that_its_header_may_hold(tmp_path: Path) -> None:
    body = gzip.compress(DATA)
    head = body[:3] + b"\x1e" + body[4:10]
    head += b"\x04\x00abcd" + b"name.raw\0" + b"a comment\0"
    head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    assert _unpack(tmp_path, head + body[10:], "gzip") == DATA
    broken = bytearray(head + body[10:])
    broken[-8] ^= 1
    with pytest.raises(Refusal, match="damaged"):
        _unpack(tmp_path, bytes(broken), "gzip")


@pytest.mark.parametrize("padding", [4, 8, 1 << 20])
def test_xz_streams_with_padding(tmp_path: Path, padding: int) -> None:
    packed = lzma.compress(DATA, preset=0)
    assert _unpack(tmp_path, packed + bytes(padding) + packed + bytes(padding), "xz") == DATA * 2
    for wrong in (packed + bytes(padding + 1), packed + bytes(padding + 2) + packed):
        with pytest.raises(Refusal, match="damaged"):
            _unpack(tmp_path, wrong, "xz")


def _skippable(data: bytes, number: int = 0) -> bytes:
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def test_zstd_frames_that_are_skipped(tmp_path: Path) -> None:
    frame, other = stored_zstd(DATA), stored_zstd(b"more")
    packed = (
        _skippable(b"first")
        + _skippable(b"", 15)
        + frame
        + _skippable(os.urandom(1 << 20), 3)
        + other
        + _skippable(b"last", 7)
    )
    assert _unpack(tmp_path, packed, "zstd") == DATA + b"more"
    assert compression_of(packed[:1024], None, None) is Compression.ZSTD
    assert compression_of(_skippable(bytes(1 << 17))[:1024], None, None) is Compression.ZSTD
    assert compression_of(frame[:64], None, None) is Compression.ZSTD


def test_windows_and_dictionaries_have_a_bound_in_words(tmp_path: Path) -> None:
    too_wide = b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00"
    with pytest.raises(Refusal, match=r"window of more than 128 MiB.*--long=27") as refused:
        _unpack(tmp_path, too_wide, "zstd")
    assert refused.value.code == "unsupported"
    needs_dictionary = b"\x28\xb5\x2f\xfd\x21\x07\x04" + b"\x21\x00\x00abcd"
    with pytest.raises(Refusal, match="dictionary that isn't among them"):
        _unpack(tmp_path, needs_dictionary, "zstd")
    wide = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    packed = bytearray(lzma.compress(b"x" * 100, filters=[{**wide[0], "dict_size": 1 << 20}]))
    at = packed.index(b"\x21\x01", 12)
    packed[at + 2] = 34  # 512 MiB
    size = (packed[12] + 1) * 4
    packed[12 + size - 4 : 12 + size] = zlib.crc32(packed[12 : 12 + size - 4]).to_bytes(4, "little")
    with pytest.raises(Refusal, match=r"dictionary of more than 192 MiB.*xz -9") as refused:
        _unpack(tmp_path, bytes(packed), "xz")
    assert refused.value.code == "unsupported"


@pytest.mark.parametrize("name", PACKERS)
def test_nothing_but_zeros_is_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal, match="only zeros"):
        _unpack(tmp_path, bytes(4096), name)


@pytest.mark.parametrize("name", PACKERS)
def test_no_message_holds_a_library_s_words(tmp_path: Path, name: str) -> None:
    packed = bytearray(PACKERS[name](DATA))
    packed[5:12] = b"\xff" * 7
    with pytest.raises(Refusal) as refused:
        _unpack(tmp_path, bytes(packed), name)
    for word in ("Error", "error", "zlib", "LZMA", "Corrupt", "invalid"):
        assert word not in str(refused.value)
