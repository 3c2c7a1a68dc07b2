"""Where a file's data are, on the file system that the tests run on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmkernel.host.extents import data_extents

MIB = 1 << 20


def _sparse(path: Path, size: int, *places: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for place in places:
            file.seek(place)
            file.write(b"x" * 4096)
    if path.stat().st_blocks * 512 >= size:
        pytest.skip("this file system has no holes")
    return path


def _all(path: Path, **limits: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    following: int | None = 0
    while following is not None:
        part, following = data_extents(path, following, **{"most": 100, "gap_bytes": 1} | limits)
        found += part
    return found


def test_holes_are_left_out(tmp_path: Path) -> None:
    path = _sparse(tmp_path / "a", 64 * MIB, 8 * MIB, 40 * MIB)
    assert [start for start, _ in _all(path)] == [8 * MIB, 40 * MIB]
    assert sum(size for _, size in _all(path)) < MIB
    assert _all(_sparse(tmp_path / "b", 64 * MIB)) == []


def test_it_comes_in_parts_and_small_holes_are_data(tmp_path: Path) -> None:
    path = _sparse(tmp_path / "a", 64 * MIB, *range(0, 64 * MIB, 4 * MIB))
    whole = _all(path)
    assert len(whole) == 16
    assert _all(path, most=3) == whole
    (one,) = _all(path, gap_bytes=5 * MIB)
    assert one[0] == 0
    assert one[1] > 60 * MIB
    assert data_extents(path, 64 * MIB, most=1, gap_bytes=1) == ([], None)


def test_a_full_file_is_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(os.urandom(100_000))
    assert _all(path) == [(0, 100_000)]
    path.write_bytes(b"")
    assert _all(path) == []
