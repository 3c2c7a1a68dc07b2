"""Unpacking gzip, xz and zstd: whole, in several members, broken, too large."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.framework.web_server import stored_zstd
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
        (packed + b"garbage", {"invalid", "truncated"}),
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
