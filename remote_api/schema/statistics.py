"""What virtual machines and the host have used, as counters that only grow and figures of now.

Times are seconds, sizes bytes. Counters of a VM begin at the start of its QEMU, the host's at its
boot; a reader that sees one shrink knows that it began anew.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Slug, Timestamp, WireModel
from remote_api.schema.vm import VmState

__all__ = [
    "DatastoreSpace",
    "DiskStatistics",
    "GuestMemory",
    "HostCpu",
    "HostDiskStatistics",
    "HostStatistics",
    "IoStatistics",
    "LinkStatistics",
    "MemoryStatistics",
    "NicStatistics",
    "VcpuStatistics",
    "VmStatistics",
]


class IoStatistics(WireModel, frozen=True, kw_only=True):
    """What a disk did in one direction (or of one kind)."""

    operations: int = 0
    bytes: int = 0
    seconds: Annotated[
        float,
        Meta(description=("The sum of what each operation took.")),
    ] = 0.0
    failed: int = 0
    latency_counts: Annotated[
        tuple[int, ...],
        Meta(
            description="How many took less than 0.1 ms, then below 0.25, 0.5, 1, 2.5, 5, 10, 25,"
            " 50, 100, 250 and 500 ms, below 1 s, below 5 s, and more; counted since these figures"
            " were first asked for."
        ),
    ] = ()


class DiskStatistics(WireModel, frozen=True, kw_only=True):
    """One virtual disk or CD-ROM."""

    key: str
    read: IoStatistics = IoStatistics()
    write: IoStatistics = IoStatistics()
    flush: IoStatistics = IoStatistics()
    discard: IoStatistics = IoStatistics()


class NicStatistics(WireModel, frozen=True, kw_only=True):
    """One network card, from the guest's point of view; null where nobody counts (hosted mode)."""

    key: str
    received_bytes: int | None = None
    received_packets: int | None = None
    received_dropped: int | None = None
    sent_bytes: int | None = None
    sent_packets: int | None = None
    sent_dropped: int | None = None


class VcpuStatistics(WireModel, frozen=True, kw_only=True):
    """One virtual processor."""

    index: int
    seconds: Annotated[
        float,
        Meta(description=("On a processor of the host.")),
    ]
    waited_seconds: Annotated[
        float, Meta(description="Ready to run while the host's processors were taken.")
    ]


class GuestMemory(WireModel, frozen=True, kw_only=True):
    """The guest's own figures, where its balloon driver tells them."""

    updated_at: Timestamp
    total_bytes: int | None = None
    available_bytes: int | None = None
    free_bytes: int | None = None
    cached_bytes: int | None = None
    swapped_in_bytes: int | None = None
    swapped_out_bytes: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None


class MemoryStatistics(WireModel, frozen=True, kw_only=True):
    """The memory of a VM."""

    assigned_bytes: Annotated[
        int,
        Meta(description=("What its spec gives it.")),
    ]
    resident_bytes: Annotated[
        int, Meta(description="What its process holds of the host's memory.")
    ] = 0
    balloon_bytes: Annotated[
        int | None,
        Meta(description="What the balloon leaves to the guest; null where there is none."),
    ] = None
    guest: GuestMemory | None = None


class VmStatistics(WireModel, frozen=True, kw_only=True):
    """One virtual machine; all is zero or empty where it doesn't run."""

    id: Slug
    at: Timestamp
    state: VmState
    complete: Annotated[
        bool,
        Meta(
            description=(
                "False where QEMU did not answer in time: its disks and balloon are missing then."
            )
        ),
    ] = True
    started_at: Timestamp | None = None
    cpu_seconds: Annotated[
        float, Meta(description="Of the whole process: virtual processors, disks, network, screen.")
    ] = 0.0
    vcpus: tuple[VcpuStatistics, ...] = ()
    memory: MemoryStatistics
    disks: tuple[DiskStatistics, ...] = ()
    nics: tuple[NicStatistics, ...] = ()


class HostCpu(WireModel, frozen=True, kw_only=True):
    """One processor of the host."""

    index: int
    seconds: Annotated[
        dict[str, float],
        Meta(
            description=(
                "By what it did: `user`, `nice`, `system`, `idle`, `iowait`, `irq`, "
                "`softirq`, `steal`, `guest` (which is in no other)."
            )
        ),
    ]


class HostDiskStatistics(WireModel, frozen=True, kw_only=True):
    """One disk of the host."""

    device: str
    read: IoStatistics
    write: IoStatistics
    busy_seconds: Annotated[
        float,
        Meta(description=("While at least one operation was under way.")),
    ]


class LinkStatistics(WireModel, frozen=True, kw_only=True):
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


class DatastoreSpace(WireModel, frozen=True, kw_only=True):
    """A datastore that is there."""

    id: Slug
    capacity_bytes: int
    free_bytes: int


class HostStatistics(WireModel, frozen=True, kw_only=True):
    """The host."""

    at: Timestamp
    uptime_s: float
    cpus: tuple[HostCpu, ...]
    memory_total_bytes: int
    memory_available_bytes: int
    memory_promised_bytes: Annotated[
        int, Meta(description="To the VMs that run, with what QEMU needs beside the guest's own.")
    ]
    vmkernel_resident_bytes: int
    waited_seconds: Annotated[
        dict[str, float],
        Meta(
            description=(
                "How long at least one task waited for `cpu`, `memory` or `io` (the kernel's "
                "pressure)."
            )
        ),
    ] = {}
    disks: tuple[HostDiskStatistics, ...] = ()
    links: tuple[LinkStatistics, ...] = ()
    datastores: tuple[DatastoreSpace, ...] = ()
