"""Pools of huge pages, as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmkernel.model import ErrorCode, MicaError
from vmkernel.resources import HugePagePool

MIB = 1 << 20
GIB = 1 << 30


def pool(folder: Path, page_kib: int, **figures: int) -> HugePagePool:
    files = folder / f"hugepages-{page_kib}kB"
    files.mkdir()
    names = ("free", "resv", "surplus", "nr", "nr_overcommit")
    for name in names:
        (files / f"{name}_hugepages").write_text(f"{figures.get(name, 0)}\n")
    return HugePagePool(folder)


def test_a_pool_that_has_them(tmp_path: Path) -> None:
    assert pool(tmp_path, 2048, nr=300, free=256).admit("web", 2 * MIB, 512 * MIB) == 0


def test_reserved_pages_are_not_free(tmp_path: Path) -> None:
    """The missing ones come from ordinary memory, for as long as they are needed."""
    pages = pool(tmp_path, 2048, nr=256, free=256, resv=56, surplus=7)
    assert pages.admit("web", 2 * MIB, 512 * MIB) == 56 * 2 * MIB
    file = tmp_path / "hugepages-2048kB/nr_overcommit_hugepages"
    assert file.read_text() == "63"


def test_large_pages_are_added(tmp_path: Path) -> None:
    assert pool(tmp_path, 1048576, nr=1, free=1).admit("web", GIB, 3 * GIB) == 2 * GIB
    assert (tmp_path / "hugepages-1048576kB/nr_hugepages").read_text() == "3"


def test_no_pool_of_that_size(tmp_path: Path) -> None:
    with pytest.raises(MicaError, match=r"needs 2 huge pages of 1024 MiB .* has 0 free") as caught:
        HugePagePool(tmp_path).admit("web", GIB, 2 * GIB)
    problem = caught.value.problem
    assert problem.code is ErrorCode.INSUFFICIENT_RESOURCES
    assert [field.pointer for field in problem.fields] == ["/spec/memory/huge_pages"]


@pytest.mark.parametrize(("page", "advice"), [(2 * MIB, "nr_hugepages"), (GIB, "of 2 MiB")])
def test_what_can_be_done_is_said(tmp_path: Path, page: int, advice: str) -> None:
    with pytest.raises(MicaError, match=advice):
        HugePagePool(tmp_path).admit("web", page, GIB)


def test_a_kernel_that_finds_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = pool(tmp_path, 1048576, nr=1, free=1)
    monkeypatch.setattr(HugePagePool, "_write", lambda *_: None)
    with pytest.raises(MicaError, match="has 1 free"):
        pages.admit("web", GIB, 2 * GIB)
