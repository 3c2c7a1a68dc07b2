"""How much memory the kernel keeps back for itself on a small host.

With transparent huge pages the kernel raises `vm.min_free_kbytes` to tens of MiB, whatever the size
of the machine (mm/khugepaged.c, set_recommended_min_free_kbytes), and keeps about as much again
above it. On a host with 2 GiB that is a twentieth of the memory, which no guest can have. Small
hosts go back to the kernel's formula for its own needs (mm/page_alloc.c, init_per_zone_wmark_min);
on larger ones the raised value is noise and helps guests get huge pages.

Besides, each CPU keeps freed pages in its own list, which grows with what was freed lately
(mm/page_alloc.c, nr_pcp_free) and shrinks only while the processor has something to do. They are
free, but the kernel counts them neither as free nor as available: tens of MiB that an idle host
seems to use, and that no guest is admitted to. Small hosts get short lists.

And of the lowest 16 MiB the kernel keeps half for devices on an ISA bus (ZONE_DMA's share of
`vm.lowmem_reserve_ratio`), which no machine that can run Mica has. Small hosts use it.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

from vmkernel.host.sysfs import PROC, read_text

__all__ = ["fit_memory_reserve"]

_log = logging.getLogger(__name__)

SMALL_HOST_BYTES = 8 << 30
_ISA_RATIO = 4096
"""The first number of the ratios: of the memory above, this part is kept below (default: 256)."""
_LIST_FRACTION = 512
"""Of a zone's memory, what all processors' lists may hold together: 4 MiB of 2 GiB."""


def fit_memory_reserve(total_bytes: int, proc: Path = PROC) -> None:
    """Lower what a host with less than 8 GiB keeps back; a failure is logged and changes nothing
    else."""
    if not 0 < total_bytes < SMALL_HOST_BYTES:
        return
    knobs = proc / "sys/vm"
    wanted_kib = math.isqrt((total_bytes >> 10) * 16)
    present = read_text(knobs / "min_free_kbytes")
    if present is not None and present.isdigit() and int(present) > wanted_kib:
        _write(knobs / "min_free_kbytes", wanted_kib)
    for name, value in (
        ("percpu_pagelist_high_fraction", _LIST_FRACTION),
        ("lowmem_reserve_ratio", _ISA_RATIO),
    ):
        if read_text(knobs / name) is not None:
            _write(knobs / name, value)


def _write(knob: Path, value: int) -> None:
    try:
        knob.write_text(f"{value}\n")
    except OSError as error:
        _log.warning("%s can't be set to %d: %s", knob.name, value, error)
