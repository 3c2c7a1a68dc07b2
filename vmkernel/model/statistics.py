"""What VMs and the host have used: counters that only grow, and present values.

Times are seconds, sizes bytes. Counters of a VM begin at the start of its QEMU, the host's at its
boot; a counter that is smaller than before has restarted from zero.
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
"""The bounds between the counts of `IoStatistics.latency_counts`, in seconds."""


class IoStatistics(Record, frozen=True, kw_only=True):
    """A disk's I/O in one direction (or flushes)."""

    operations: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """The total duration of all operations."""
    failed: int = 0
    latency_counts: tuple[int, ...] = ()
    """Operations by duration: under 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250 and 500 ms,
    under 1 s, under 5 s, and longer; counted since these statistics were first requested."""


class DiskStatistics(Record, frozen=True, kw_only=True):
    """One virtual disk or CD-ROM."""

    key: str
    read: IoStatistics = IoStatistics()
    write: IoStatistics = IoStatistics()
    flush: IoStatistics = IoStatistics()
    discard: IoStatistics = IoStatistics()


class NicStatistics(Record, frozen=True, kw_only=True):
    """One NIC, from the guest's point of view; null if it isn't counted (hosted mode)."""

    key: str
    received_bytes: int | None = None
    received_packets: int | None = None
    received_dropped: int | None = None
    sent_bytes: int | None = None
    sent_packets: int | None = None
    sent_dropped: int | None = None


class VcpuStatistics(Record, frozen=True, kw_only=True):
    """One vCPU."""

    index: int
    seconds: float
    """Time running on a CPU of the host."""
    waited_seconds: float
    """Time ready to run while the host's CPUs were busy."""


class GuestMemory(Record, frozen=True, kw_only=True):
    """The guest's own values, if its balloon driver reports them."""

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
    """The memory that its spec assigns."""
    resident_bytes: int = 0
    """The host memory that its process uses."""
    balloon_bytes: int | None = None
    """The memory that the balloon leaves to the guest; null if there is no balloon."""
    guest: GuestMemory | None = None


class VmStatistics(Record, frozen=True, kw_only=True):
    """One VM; everything is zero or empty unless it is running."""

    id: Slug
    at: Timestamp
    state: VmState
    complete: bool = True
    """False if QEMU did not answer in time: disks and balloon are missing."""
    started_at: Timestamp | None = None
    cpu_seconds: float = 0.0
    """CPU time of the whole process: vCPUs, disks, network, display."""
    vcpus: tuple[VcpuStatistics, ...] = ()
    memory: MemoryStatistics
    disks: tuple[DiskStatistics, ...] = ()
    nics: tuple[NicStatistics, ...] = ()


class HostCpu(Record, frozen=True, kw_only=True):
    """One CPU of the host."""

    index: int
    seconds: dict[str, float]
    """Seconds by state: `user`, `nice`, `system`, `idle`, `iowait`, `irq`, `softirq`, `steal`,
    `guest` (not included in any other)."""


class HostDiskStatistics(Record, frozen=True, kw_only=True):
    """One disk of the host."""

    device: str
    read: IoStatistics
    write: IoStatistics
    busy_seconds: float
    """Time with at least one operation in progress."""


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
    """The space of a datastore that is present."""

    id: Slug
    capacity_bytes: int
    free_bytes: int


class HostStatistics(Record, frozen=True, kw_only=True):
    """What the host uses."""

    at: Timestamp
    uptime_s: float
    cpus: tuple[HostCpu, ...]
    memory_total_bytes: int
    memory_available_bytes: int
    memory_promised_bytes: int
    """Memory promised to running VMs, including QEMU's own."""
    vmkernel_resident_bytes: int
    waited_seconds: dict[str, float] = {}
    """Time that at least one task waited for `cpu`, `memory` or `io` (the kernel's pressure stall
    information)."""
    disks: tuple[HostDiskStatistics, ...] = ()
    links: tuple[LinkStatistics, ...] = ()
    datastores: tuple[DatastoreSpace, ...] = ()
