"""How much memory the kernel keeps free for itself on a small host.

With transparent huge pages the kernel raises `vm.min_free_kbytes` to tens of MiB, whatever the size
of the machine (mm/khugepaged.c, set_recommended_min_free_kbytes), and keeps about as much again
above it. On a host with 2 GiB that is a twentieth of the memory, which no guest can have. Small
hosts go back to the kernel's formula for its own needs (mm/page_alloc.c, init_per_zone_wmark_min);
on larger ones the raised value is noise and helps guests get huge pages.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

from vmkernel.host.sysfs import PROC, read_text

__all__ = ["fit_memory_reserve"]

_log = logging.getLogger(__name__)

SMALL_HOST_BYTES = 8 << 30


def fit_memory_reserve(total_bytes: int, proc: Path = PROC) -> None:
    """Lower the reserve of a host with less than 8 GiB; a failure is logged and changes nothing."""
    if not 0 < total_bytes < SMALL_HOST_BYTES:
        return
    wanted_kib = math.isqrt((total_bytes >> 10) * 16)
    knob = proc / "sys/vm/min_free_kbytes"
    present = read_text(knob)
    if present is None or not present.isdigit() or int(present) <= wanted_kib:
        return
    try:
        knob.write_text(f"{wanted_kib}\n")
    except OSError as error:
        _log.warning("the kernel's memory reserve stays at %s KiB: %s", present, error)
