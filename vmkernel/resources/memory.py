"""Memory: a VM that can't fit isn't started, and a running one can't take more than its share.

A start is refused unless the VM's expected need fits twice over:
- into what the host has, less its reserve, less what the running VMs were promised (they may
  not have touched it yet);
- into what the kernel says is available now (other programs may have taken it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vmkernel.devices import Accelerator
from vmkernel.model import ErrorCode, MicaError
from vmkernel.qemu import TCG_CACHE_BYTES

__all__ = [
    "MemoryAdmission",
    "MemoryFigures",
    "expected_bytes",
    "host_memory",
    "limit_bytes",
    "reserve_bytes",
]

_MIB = 1 << 20
_QEMU_BYTES = 128 * _MIB
"""The memory that QEMU was measured to need beyond the guest's, with a margin."""
_QEMU_LIMIT_BYTES = 384 * _MIB
_HOST_BYTES = (150 + 48) * _MIB
VMKERNEL_PERCENT = 9
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class MemoryFigures:
    """The kernel's values."""

    total_bytes: int
    available_bytes: int


def host_memory(path: Path = _MEMINFO) -> MemoryFigures:
    found = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            found[name] = int(rest.split()[0]) * 1024
    return MemoryFigures(found["MemTotal"], found["MemAvailable"])


def expected_bytes(guest_bytes: int, accelerator: Accelerator) -> int:
    """What a VM is expected to use: the guest, QEMU, the tables for the guest's pages."""
    translated = TCG_CACHE_BYTES // 2 if accelerator is Accelerator.TCG else 0
    return guest_bytes + _QEMU_BYTES + guest_bytes // 256 + translated


def limit_bytes(guest_bytes: int, accelerator: Accelerator) -> int:
    """What a VM can use before the kernel kills it: with room for page cache and bursts."""
    translated = TCG_CACHE_BYTES if accelerator is Accelerator.TCG else 0
    return guest_bytes + _QEMU_LIMIT_BYTES + guest_bytes // 64 + translated


def reserve_bytes(total_bytes: int) -> int:
    """What no guest is promised: the host's own 150 MiB without the vmkernel, the API as it usually
    is (48 MiB), and all that the vmkernel may take (MemoryMax= of its unit). Should the API take
    more, it is the first to be ended (OOMScoreAdjust=)."""
    return _HOST_BYTES + total_bytes * VMKERNEL_PERCENT // 100


class MemoryAdmission:
    """Keeps count of what the running VMs were promised."""

    def __init__(
        self, *, reserve_bytes: int, measure: Callable[[], MemoryFigures] = host_memory
    ) -> None:
        self._reserve_bytes = reserve_bytes
        self._measure = measure
        self._promised: dict[str, int] = {}

    def admit(self, vm_id: str, need_bytes: int) -> None:
        """Promise memory to a VM; `insufficient-resources`, with the numbers, if it isn't
        available.

        For a running VM, this is all of its memory; what it already has need not be available
        again.
        """
        figures = self._measure()
        held = self._promised.get(vm_id, 0)
        others = sum(self._promised.values()) - held
        available = figures.available_bytes + held
        free = min(figures.total_bytes - self._reserve_bytes - others, available)
        if need_bytes > free:
            raise MicaError(
                ErrorCode.INSUFFICIENT_RESOURCES,
                f"VM {vm_id} needs {_mib(need_bytes)} of memory and {_mib(max(0, free))} are free"
                f" ({_mib(figures.total_bytes)} in all, {_mib(others)} promised to running VMs,"
                f" {_mib(figures.available_bytes)} unused now): reduce its memory or stop another"
                " VM.",
            )
        self._promised[vm_id] = need_bytes

    def note(self, vm_id: str, need_bytes: int) -> None:
        """A VM that runs already has this much."""
        self._promised[vm_id] = need_bytes

    def release(self, vm_id: str) -> None:
        self._promised.pop(vm_id, None)

    @property
    def promised_bytes(self) -> int:
        """What all running VMs were promised."""
        return sum(self._promised.values())


def _mib(size: int) -> str:
    return f"{-(-size // _MIB)} MiB"
