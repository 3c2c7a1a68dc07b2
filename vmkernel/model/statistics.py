"""What virtual machines and the host have used, as counters that only grow and figures of now.

Times are seconds, sizes bytes. Counters of a VM begin at the start of its QEMU, the host's at its
boot; a reader that sees one shrink knows that it began anew.
"""

from __future__ import annotations

from vmkernel.model.base import Record, Slug, Timestamp
from vmkernel.model.vm import VmState

__all__ = [
    "DatastoreSpace",
    "DiskStatistics",
    "GuestMemory",
    "HostCpu",
    "HostDiskStatistics",
    "HostStatistics",
    "IoStatistics",
    "LATENCY_BOUNDS_S",
    "LinkStatistics",
    "MemoryStatistics",
    "NicStatistics",
    "VcpuStatistics",
    "VmStatistics",
]

LATENCY_BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)
"""What separates the counts of `IoStatistics.latency_counts`, in seconds."""


class IoStatistics(Record, frozen=True, kw_only=True):
    """What a disk did in one direction (or of one kind)."""

    operations: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """The sum of what each operation took."""
    failed: int = 0
    latency_counts: tuple[int, ...] = ()
    """How many took less than 0.1 ms, then below 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250 and 500
    ms, below 1 s, below 5 s, and more; counted since these figures were first asked for."""


class DiskStatistics(Record, frozen=True, kw_only=True):
    """One virtual disk or CD-ROM."""

    key: str
    read: IoStatistics = IoStatistics()
    write: IoStatistics = IoStatistics()
    flush: IoStatistics = IoStatistics()
    discard: IoStatistics = IoStatistics()


class NicStatistics(Record, frozen=True, kw_only=True):
    """One network card, from the guest's point of view; null if nothing counts it (hosted mode)."""

    key: str
    received_bytes: int | None = None
    received_packets: int | None = None
    received_dropped: int | None = None
    sent_bytes: int | None = None
    sent_packets: int | None = None
    sent_dropped: int | None = None


class VcpuStatistics(Record, frozen=True, kw_only=True):
    """One virtual processor."""

    index: int
    seconds: float
    """On a processor of the host."""
    waited_seconds: float
    """Ready to run while the host's processors were taken."""


class GuestMemory(Record, frozen=True, kw_only=True):
    """The guest's own figures, if its balloon driver reports them."""

    updated_at: Timestamp
    total_bytes: int | None = None
    available_bytes: int | None = None
    free_bytes: int | None = None
    cached_bytes: int | None = None
    swapped_in_bytes: int | None = None
    swapped_out_bytes: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None


class MemoryStatistics(Record, frozen=True, kw_only=True):
    """The memory of a VM."""

    assigned_bytes: int
    """What its spec gives it."""
    resident_bytes: int = 0
    """What its process holds of the host's memory."""
    balloon_bytes: int | None = None
    """What the balloon leaves to the guest; null if there is none."""
    guest: GuestMemory | None = None


class VmStatistics(Record, frozen=True, kw_only=True):
    """One virtual machine; everything is zero or empty unless it runs."""

    id: Slug
    at: Timestamp
    state: VmState
    complete: bool = True
    """False if QEMU did not answer in time: its disks and balloon are missing then."""
    started_at: Timestamp | None = None
    cpu_seconds: float = 0.0
    """Of the whole process: virtual processors, disks, network, screen."""
    vcpus: tuple[VcpuStatistics, ...] = ()
    memory: MemoryStatistics
    disks: tuple[DiskStatistics, ...] = ()
    nics: tuple[NicStatistics, ...] = ()


class HostCpu(Record, frozen=True, kw_only=True):
    """One processor of the host."""

    index: int
    seconds: dict[str, float]
    """By what it did: `user`, `nice`, `system`, `idle`, `iowait`, `irq`, `softirq`, `steal`,
    `guest` (which is in no other)."""


class HostDiskStatistics(Record, frozen=True, kw_only=True):
    """One disk of the host."""

    device: str
    read: IoStatistics
    write: IoStatistics
    busy_seconds: float
    """While at least one operation was under way."""


class LinkStatistics(Record, frozen=True, kw_only=True):
    """One network interface of the host, from the host's point of view."""

    name: str
    received_bytes: int
    received_packets: int
    received_dropped: int
    received_errors: int
    sent_bytes: int
    sent_packets: int
    sent_dropped: int
    sent_errors: int


class DatastoreSpace(Record, frozen=True, kw_only=True):
    """A datastore that is there."""

    id: Slug
    capacity_bytes: int
    free_bytes: int


class HostStatistics(Record, frozen=True, kw_only=True):
    """The host."""

    at: Timestamp
    uptime_s: float
    cpus: tuple[HostCpu, ...]
    memory_total_bytes: int
    memory_available_bytes: int
    memory_promised_bytes: int
    """To the VMs that run, with what QEMU needs beside the guest's own."""
    vmkernel_resident_bytes: int
    waited_seconds: dict[str, float] = {}
    """How long at least one task waited for `cpu`, `memory` or `io` (the kernel's pressure)."""
    disks: tuple[HostDiskStatistics, ...] = ()
    links: tuple[LinkStatistics, ...] = ()
    datastores: tuple[DatastoreSpace, ...] = ()
