"""Unpacking gzip, xz and zstd: whole, in several members, broken, too large."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.framework.web_server import stored_zstd
from vmkernel.model import Compression
from vmkernel.storage.images.formats.inspection import compression_of
from vmkernel.workers.report import Refusal, Report
from vmkernel.workers.unpack import unpack

MIB = 1 << 20
DATA = os.urandom(MIB + 5) + bytes(4 * MIB) + b"end"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": stored_zstd,
}


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
        *([(packed + b"garbage", {"invalid", "truncated"})] if name != "gzip" else []),
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

_WHOLE = {
    "gzip": ["gzip -1", "gzip -9 --rsyncable", "pigz", "pigz -11 -b 128", "pigz -i -k"],
    "xz": ["xz -0", "xz -1 --block-size=300000", "xz --check=none", "xz -T2", "pixz", "pixz -t"],
    "zstd": ["zstd", "zstd -19", "zstd --long=27", "zstd --no-check", "zstd -T2 --fast"],
}


@pytest.mark.parametrize(
    ("name", "tool"), [(name, tool) for name, tools in _WHOLE.items() for tool in tools]
)
def test_what_real_tools_pack(tmp_path: Path, name: str, tool: str) -> None:
    packed = _packed(tool, DATA)
    assert _unpack(tmp_path, packed, name) == DATA
    assert _unpack(tmp_path, packed + packed, name) == DATA + DATA
    assert _unpack(tmp_path, packed + bytes(1024) + packed, name) == DATA + DATA
    with pytest.raises(Refusal) as refused:
        _unpack(tmp_path, packed[: len(packed) // 2], name)
    assert refused.value.code == "truncated"


def _packed(tool: str, data: bytes) -> bytes:
    words = tool.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return subprocess.run(
        [*words, "-c"] if words[0] != "pixz" else words,
        input=data,
        capture_output=True,
        check=True,
        timeout=120,
    ).stdout


@pytest.mark.parametrize(
    "tail", [b"garbage", b"\x1f", b"\0\0\0junk", b"\x1e\x8b\x08", os.urandom(1 << 19), b"x" * 7]
)
def test_gzip_ignores_what_trails_as_gzip_does(tmp_path: Path, tail: bytes) -> None:
    packed = gzip.compress(DATA)
    assert _unpack(tmp_path, packed + tail, "gzip") == DATA
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
