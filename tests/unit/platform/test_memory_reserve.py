"""What the kernel keeps back on small and large hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmkernel.platform.memory_reserve import fit_memory_reserve

GIB = 1 << 30


def _proc(folder: Path, reserve: str) -> tuple[Path, Path]:
    knobs = folder / "sys/vm"
    knobs.mkdir(parents=True)
    (knobs / "min_free_kbytes").write_text(reserve)
    (knobs / "percpu_pagelist_high_fraction").write_text("0\n")
    (knobs / "lowmem_reserve_ratio").write_text("256\t256\t32\t0\t0\n")
    return knobs / "min_free_kbytes", knobs / "percpu_pagelist_high_fraction"


def test_a_small_host_goes_back_to_the_kernels_own_formula(tmp_path: Path) -> None:
    reserve, lists = _proc(tmp_path, "45056\n")
    fit_memory_reserve(2 * GIB, tmp_path)
    assert int(reserve.read_text()) == 5792
    assert int(lists.read_text()) == 512
    # The kernel takes one number for the first of several.
    assert (reserve.parent / "lowmem_reserve_ratio").read_text() == "4096\n"


def test_a_low_reserve_is_left_alone(tmp_path: Path) -> None:
    reserve, lists = _proc(tmp_path, "4096\n")
    fit_memory_reserve(2 * GIB, tmp_path)
    assert reserve.read_text() == "4096\n"
    assert int(lists.read_text()) == 512


def test_a_large_host_is_left_alone(tmp_path: Path) -> None:
    reserve, lists = _proc(tmp_path, "90112\n")
    fit_memory_reserve(64 * GIB, tmp_path)
    assert (reserve.read_text(), lists.read_text()) == ("90112\n", "0\n")


def test_a_kernel_without_the_knobs_is_no_failure(tmp_path: Path) -> None:
    fit_memory_reserve(2 * GIB, tmp_path)


def test_one_that_can_not_be_set_keeps_the_other_from_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, lists = _proc(tmp_path, "45056\n")
    write = Path.write_text

    def refuse(path: Path, text: str) -> int:
        if path == reserve:
            raise PermissionError(13, "denied")
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", refuse)
    fit_memory_reserve(2 * GIB, tmp_path)
    assert "min_free_kbytes" in caplog.text
    assert int(lists.read_text()) == 512
