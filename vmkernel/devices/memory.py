"""The guest's memory, and what is added to it while it runs.

Memory is added as DIMMs (pc-dimm), because every current system supports them without a driver:
Linux, Windows Server, BSD. virtio-mem could also remove memory again, but needs a driver that
Windows and old Linux lack; reclaiming memory is left to the balloon. A DIMM is a multiple of 128
MiB, the smallest block that Linux brings online. After the next start, all of it is ordinary
memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vmkernel.devices.arguments import Arguments
from vmkernel.devices.device import Board, Device
from vmkernel.devices.plan import Family, MachinePlan
from vmkernel.model import FieldError, HugePages, VmSpec

__all__ = [
    "DIMMS_MAX",
    "DIMM_STEP_BYTES",
    "MEMORY",
    "MEMORY_DEVICE",
    "add_dimm",
    "dimm_memory",
    "huge_page_bytes",
]

MEMORY = "memory0"
"""The memory that the machine starts with."""
DIMM_STEP_BYTES = 128 << 20
DIMMS_MAX = 32
_MIB = 1 << 20
_PAGE_BYTES = {HugePages.SIZE_2M: 2 << 20, HugePages.SIZE_1G: 1 << 30}


def huge_page_bytes(pages: HugePages) -> int | None:
    """The size of a huge page; None for ordinary ones."""
    return _PAGE_BYTES.get(pages)


def _add(board: Board, plan: MachinePlan) -> None:
    """The memory at the start, room for more, and what had been added."""
    args, spec = board.args, plan.spec
    size_bytes, max_bytes = spec.memory_bytes, spec.memory.max_bytes
    _backend(args, MEMORY, size_bytes, spec.memory.huge_pages)
    size = f"{size_bytes // _MIB}M"
    if max_bytes is None or max_bytes <= size_bytes:
        args.text("m", size)
    else:
        args.keyval("m", size=size, slots=DIMMS_MAX, maxmem=f"{max_bytes // _MIB}M")
    for number, dimm_bytes in () if board.topology is None else board.topology.dimms:
        add_dimm(args, number, dimm_bytes, spec.memory.huge_pages)


def add_dimm(args: Arguments, number: int, size_bytes: int, huge_pages: HugePages) -> None:
    """One more DIMM, `dimm<number>`."""
    _backend(args, dimm_memory(number), size_bytes, huge_pages)
    args.device("pc-dimm", id=f"dimm{number}", memdev=dimm_memory(number))


def dimm_memory(number: int) -> str:
    """The id of a DIMM's memory."""
    return f"dimm{number}-memory"


def _backend(args: Arguments, name: str, size_bytes: int, huge_pages: HugePages) -> None:
    """Huge pages are taken at once, so that a pool that is too small is seen now and not by a
    guest that is killed later."""
    common: dict[str, Any] = {"size": size_bytes, "dump": False, "merge": False}
    page = huge_page_bytes(huge_pages)
    if page is None:
        args.object("memory-backend-ram", name, **common)
        return
    args.object(
        "memory-backend-memfd",
        name,
        **common,
        share=False,
        hugetlb=True,
        hugetlbsize=page,
        prealloc=True,
        seal=False,
    )


def _check(spec: VmSpec, _family: Family) -> Iterator[FieldError]:
    memory, size = spec.memory, spec.memory_bytes
    if memory.max_bytes is not None:
        if memory.max_bytes < size:
            yield FieldError(
                pointer="/spec/memory/max_bytes", detail="It must be at least `memory_bytes`."
            )
        elif (memory.max_bytes - size) % DIMM_STEP_BYTES:
            yield FieldError(
                pointer="/spec/memory/max_bytes",
                detail="It must exceed `memory_bytes` by a multiple of"
                f" {DIMM_STEP_BYTES // _MIB} MiB, the size of what can be added.",
            )
    page = huge_page_bytes(memory.huge_pages)
    if page is not None and size % page:
        yield FieldError(
            pointer="/spec/memory_bytes",
            detail=f"It must be a multiple of its huge pages, {page // _MIB} MiB.",
        )


MEMORY_DEVICE = Device(add=_add, check=_check)
