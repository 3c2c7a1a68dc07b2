"""The kernel's memory reserve on small and large hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmkernel.platform.memory_reserve import fit_memory_reserve

GIB = 1 << 30


def _proc(folder: Path, present: str) -> Path:
    knob = folder / "sys/vm/min_free_kbytes"
    knob.parent.mkdir(parents=True)
    knob.write_text(present)
    return knob


def test_a_small_host_goes_back_to_the_kernels_own_formula(tmp_path: Path) -> None:
    knob = _proc(tmp_path, "45056\n")
    fit_memory_reserve(2 * GIB, tmp_path)
    assert int(knob.read_text()) == 5792


@pytest.mark.parametrize(("total", "present"), [(64 * GIB, "90112\n"), (2 * GIB, "4096\n")])
def test_a_large_host_or_a_low_reserve_is_left_alone(
    tmp_path: Path, total: int, present: str
) -> None:
    knob = _proc(tmp_path, present)
    fit_memory_reserve(total, tmp_path)
    assert knob.read_text() == present


def test_a_kernel_without_the_knob_is_no_failure(tmp_path: Path) -> None:
    fit_memory_reserve(2 * GIB, tmp_path)
