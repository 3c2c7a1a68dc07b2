"""What the machine is: processor, memory, virtualisation, how it was started. Read, never kept."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from vmkernel import clock
from vmkernel.host.efi import booted_by_uefi, loader_variables, secure_boot
from vmkernel.host.sysfs import DEV, PROC, SYS, read_text
from vmkernel.model import BootInfo, CpuInfo, MemoryInfo, VirtualisationInfo

__all__ = ["boot_info", "boot_time_s", "cpu_info", "memory_info", "virtualisation_info"]

_TRIES = re.compile(r"\+\d+(-\d+)?$")
_EXTENSIONS = ("svm", "vmx")
_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon"}
_FIRMWARE_OFF = re.compile(
    r"(VMX|SVM)\b.*disabled (by|\(by) BIOS|kvm: (support for .* )?disabled by bios", re.IGNORECASE
)


def cpu_info(proc: Path = PROC) -> CpuInfo:
    blocks = list(_processors(proc))
    first = blocks[0] if blocks else {}
    sockets = {block.get("physical id", "0") for block in blocks}
    cores = {(b.get("physical id", "0"), b.get("core id", str(i))) for i, b in enumerate(blocks)}
    vendor = first.get("vendor_id", "")
    return CpuInfo(
        vendor=_VENDORS.get(vendor, vendor),
        model=first.get("model name", ""),
        sockets=max(1, len(sockets)),
        cores=max(1, len(cores)),
        threads=max(1, len(blocks)),
    )


def memory_info(proc: Path = PROC) -> MemoryInfo:
    """The memory as the kernel counts it now."""
    values = {}
    for line in (read_text(proc / "meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()
        if number and number[0].isdigit():
            values[name] = int(number[0]) << 10
    return MemoryInfo(
        total_bytes=values.get("MemTotal", 0), available_bytes=values.get("MemAvailable", 0)
    )


def virtualisation_info(
    *,
    accelerator: str | None = None,
    reason: str | None = None,
    log: str = "",
    proc: Path = PROC,
    dev: Path = DEV,
) -> VirtualisationInfo:
    """Whether hardware virtualisation is available, and why not.

    `accelerator` is what the launcher of VMs found by trying, if it did, and `reason` why that
    isn't KVM, if it knows; `log` is the kernel's, which shows if the firmware has disabled the
    extension.
    """
    flags = next(_processors(proc), {}).get("flags", "").split()
    extension = next((name for name in _EXTENSIONS if name in flags), None)
    node = dev / "kvm"
    usable = os.access(node, os.R_OK | os.W_OK)
    available = usable if accelerator is None else accelerator == "kvm"
    return VirtualisationInfo(
        available=available,
        extension=extension,
        accelerator=accelerator or ("kvm" if usable else "tcg"),
        reason=None if available else reason or _why_not(extension, node, usable, log),
    )


def boot_time_s() -> float:
    """When the kernel was started, in seconds since the epoch, by the present clock."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_info(timings_s: dict[str, float], *, sys: Path = SYS) -> BootInfo:
    """How the host was started; `timings_s` are seconds from the kernel's start to named stages.

    If the loader reported when it handed over, all times count from power-on.
    """
    variables = loader_variables(sys)
    times: dict[str, float] = {}
    offset = 0.0
    if variables.started_s is not None and variables.handed_over_s is not None:
        offset = variables.handed_over_s
        times["loader"] = round(variables.started_s, 3)
        times["kernel"] = round(offset, 3)
    times.update({name: round(offset + value, 3) for name, value in timings_s.items()})
    entry = variables.entry
    return BootInfo(
        firmware="uefi" if booted_by_uefi(sys) else "bios",
        secure_boot=secure_boot(sys),
        kernel=os.uname().release,
        bank=_bank(entry) if entry else None,
        booted_at=clock.format_time(boot_time_s()),
        uptime_s=round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
        timings_s=times,
    )


def _bank(entry: str) -> str:
    """A boot entry's name without its file type and its count of tries."""
    return _TRIES.sub("", entry.removesuffix(".efi").removesuffix(".conf"))


def _processors(proc: Path) -> Iterator[dict[str, str]]:
    for block in (read_text(proc / "cpuinfo") or "").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        if "processor" in fields:
            yield fields


def _why_not(extension: str | None, node: Path, usable: bool, log: str) -> str:
    if extension is None:
        if _FIRMWARE_OFF.search(log):
            return "Hardware virtualisation is disabled in the firmware set-up; enable it."
        return (
            "The CPU reports no hardware virtualisation (SVM or VMX); enable it in the "
            "firmware set-up, or in the hypervisor that this machine runs under."
        )
    if not node.exists():
        return f"The kernel created no {node}; hardware virtualisation ({extension}) did not start."
    if not usable:
        return f"{node} can't be opened; the vmkernel's user needs access to it."
    return "A trial guest did not run with hardware virtualisation."
