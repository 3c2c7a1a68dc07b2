"""The host's pools of huge pages (Linux: Documentation/admin-guide/mm/hugetlbpage.rst).

A VM on huge pages starts only if the pool has enough, or can be extended: pages of 2 MiB are taken
from ordinary memory as long as a VM needs them (`nr_overcommit_hugepages`, which gives them back by
itself); pages of 1 GiB are added to the pool if the kernel still finds whole ones, and stay.
Without root only the administrator can extend the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmkernel.model import ErrorCode, MicaError

__all__ = ["HugePagePool"]

_POOLS = Path("/sys/kernel/mm/hugepages")
_OVERCOMMIT_MAX_BYTES = 2 << 20
"""The largest pages that the kernel takes from ordinary memory for a while."""


@dataclass(frozen=True)
class HugePagePool:
    """All pools, by the size of their pages."""

    folder: Path = _POOLS

    def admit(self, vm_id: str, page_bytes: int, size_bytes: int) -> int:
        """Make sure that a VM can have its pages; returns the bytes of ordinary memory that they
        take.

        `insufficient-resources`, with the numbers, if it can't. Blocks for as long as the kernel
        looks for pages.
        """
        need = size_bytes // page_bytes
        free = self._free(page_bytes)
        missing = max(0, need - free)
        if missing and not self._grow(page_bytes, missing):
            raise MicaError.field(
                "/spec/memory/huge_pages",
                f"VM {vm_id} needs {need} huge pages of {page_bytes >> 20} MiB and the host's pool"
                f" has {max(0, free)} free: {_advice(page_bytes)}",
                ErrorCode.INSUFFICIENT_RESOURCES,
            )
        return missing * page_bytes

    def _free(self, page_bytes: int) -> int:
        return self._read(page_bytes, "free_hugepages") - self._read(page_bytes, "resv_hugepages")

    def _grow(self, page_bytes: int, missing: int) -> bool:
        try:
            if page_bytes <= _OVERCOMMIT_MAX_BYTES:
                surplus = self._read(page_bytes, "surplus_hugepages")
                present = self._read(page_bytes, "nr_overcommit_hugepages")
                self._write(page_bytes, "nr_overcommit_hugepages", max(present, surplus + missing))
                return True
            present = self._read(page_bytes, "nr_hugepages")
            self._write(page_bytes, "nr_hugepages", present + missing)
            if self._read(page_bytes, "nr_hugepages") >= present + missing:
                return True
            self._write(page_bytes, "nr_hugepages", present)
        except OSError:
            pass
        return False

    def _read(self, page_bytes: int, name: str) -> int:
        """A value of a pool; 0 if the host has none of that size."""
        try:
            return int(self._file(page_bytes, name).read_text())
        except (OSError, ValueError):
            return 0

    def _write(self, page_bytes: int, name: str, count: int) -> None:
        self._file(page_bytes, name).write_text(str(count))

    def _file(self, page_bytes: int, name: str) -> Path:
        return self.folder / f"hugepages-{page_bytes >> 10}kB" / name


def _advice(page_bytes: int) -> str:
    if page_bytes <= _OVERCOMMIT_MAX_BYTES:
        return "have the host's administrator raise vm.nr_hugepages, or do without huge pages."
    return (
        "the kernel can't assemble more. Use pages of 2 MiB, or start the VM soon after"
        " the host, when its memory is still in large pieces."
    )
