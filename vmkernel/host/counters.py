"""The kernel's counters: CPU time, memory, disks, interfaces, of the host and of a process.

Sources: proc(5), Documentation/admin-guide/iostats.rst, Documentation/accounting/psi.rst and
Documentation/scheduler/sched-stats.rst of Linux.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from vmkernel.host.sysfs import PROC, SYS, read_text, subfolders
from vmkernel.model.volumes import SECTOR_BYTES

__all__ = [
    "BlockCounters",
    "InterfaceCounters",
    "ThreadTime",
    "block_counters",
    "cpu_seconds",
    "interface_counters",
    "pressure_seconds",
    "process_cpu_seconds",
    "resident_bytes",
    "thread_times",
]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest")
_NO_DISK = re.compile(r"(loop|ram|zram|fd|sr)\d+")


@dataclass(frozen=True)
class BlockCounters:
    """One whole disk, since boot."""

    read_operations: int
    read_bytes: int
    read_seconds: float
    write_operations: int
    write_bytes: int
    write_seconds: float
    busy_seconds: float


@dataclass(frozen=True)
class InterfaceCounters:
    """One interface, since it was created."""

    received_bytes: int
    received_packets: int
    received_errors: int
    received_dropped: int
    sent_bytes: int
    sent_packets: int
    sent_errors: int
    sent_dropped: int


@dataclass(frozen=True)
class ThreadTime:
    """A thread's time on a CPU, and ready without one."""

    name: str
    seconds: float
    waited_seconds: float


def cpu_seconds(proc: Path = PROC) -> dict[int, dict[str, float]]:
    """Each CPU's seconds by state; `guest` is not included in `user`."""
    found = {}
    for line in (read_text(proc / "stat") or "").splitlines():
        name, *ticks = line.split()
        if not (name.startswith("cpu") and name[3:].isdigit()):
            continue
        seconds = {mode: int(t) / _TICKS for mode, t in zip(_MODES, ticks, strict=False)}
        seconds["user"] = max(0.0, seconds.get("user", 0.0) - seconds.get("guest", 0.0))
        found[int(name[3:])] = seconds
    return found


def pressure_seconds(proc: Path = PROC) -> dict[str, float]:
    """How long at least one task has waited, by resource; empty if the kernel doesn't count it."""
    found = {}
    for what in ("cpu", "io", "memory"):
        match = re.match(r"some .*\btotal=(\d+)", read_text(proc / "pressure" / what) or "")
        if match:
            found[what] = int(match[1]) / 1e6
    return found


def block_counters(proc: Path = PROC, sys: Path = SYS) -> dict[str, BlockCounters]:
    """Whole disks by device name."""
    whole = set(subfolders(sys / "block"))
    found = {}
    for line in (read_text(proc / "diskstats") or "").splitlines():
        words = line.split()
        if len(words) < 14 or words[2] not in whole or _NO_DISK.fullmatch(words[2]):
            continue
        n = [int(word) for word in words[3:14]]
        found[words[2]] = BlockCounters(
            read_operations=n[0],
            read_bytes=n[2] * SECTOR_BYTES,
            read_seconds=n[3] / 1e3,
            write_operations=n[4],
            write_bytes=n[6] * SECTOR_BYTES,
            write_seconds=n[7] / 1e3,
            busy_seconds=n[9] / 1e3,
        )
    return found


def interface_counters(proc: Path = PROC) -> dict[str, InterfaceCounters]:
    """Every interface by name."""
    found = {}
    for line in (read_text(proc / "net/dev") or "").splitlines()[2:]:
        name, _, rest = line.partition(":")
        n = [int(word) for word in rest.split()]
        if len(n) >= 12:
            found[name.strip()] = InterfaceCounters(
                received_bytes=n[0],
                received_packets=n[1],
                received_errors=n[2],
                received_dropped=n[3],
                sent_bytes=n[8],
                sent_packets=n[9],
                sent_errors=n[10],
                sent_dropped=n[11],
            )
    return found


def thread_times(pid: int, proc: Path = PROC) -> list[ThreadTime]:
    """The threads of a process; empty if it has ended."""
    found = []
    tasks = proc / str(pid) / "task"
    for thread in subfolders(tasks):
        numbers = (read_text(tasks / thread / "schedstat") or "").split()
        name = read_text(tasks / thread / "comm")
        if name and len(numbers) >= 2:
            found.append(ThreadTime(name, int(numbers[0]) / 1e9, int(numbers[1]) / 1e9))
    return found


def process_cpu_seconds(pid: int, proc: Path = PROC) -> float:
    """CPU time of all threads of a process, including ended ones."""
    fields = (read_text(proc / str(pid) / "stat") or "").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS if len(fields) > 12 else 0.0


def resident_bytes(pid: int | str, proc: Path = PROC) -> int:
    """The memory that a process (a number, or `self`) holds."""
    fields = (read_text(proc / str(pid) / "statm") or "").split()
    return int(fields[1]) * _PAGE_BYTES if len(fields) > 1 else 0
