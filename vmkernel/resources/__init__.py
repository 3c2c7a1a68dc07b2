"""CPU and memory of the host as VMs get them: admission and limits; it starts and stops nothing."""

from vmkernel.resources.huge_pages import HugePagePool
from vmkernel.resources.memory import (
    MemoryAdmission,
    MemoryFigures,
    expected_bytes,
    host_memory,
    limit_bytes,
    reserve_bytes,
)

__all__ = [
    "HugePagePool",
    "MemoryAdmission",
    "MemoryFigures",
    "expected_bytes",
    "host_memory",
    "limit_bytes",
    "reserve_bytes",
]
