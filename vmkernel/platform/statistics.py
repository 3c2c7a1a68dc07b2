"""The host's statistics."""

from __future__ import annotations

import time

from vmkernel import clock
from vmkernel.host.counters import (
    block_counters,
    cpu_seconds,
    interface_counters,
    pressure_seconds,
    resident_bytes,
)
from vmkernel.host.sysfs import SYS, subfolders
from vmkernel.model import (
    DatastoreSpace,
    HostCpu,
    HostDiskStatistics,
    HostStatistics,
    IoStatistics,
    LinkStatistics,
)
from vmkernel.platform.facts import memory_info

__all__ = ["host_statistics"]


def host_statistics(
    *, promised_bytes: int, datastores: tuple[DatastoreSpace, ...]
) -> HostStatistics:
    """What the kernel counts, with what others know; taps of VMs and the loopback are left out."""
    memory = memory_info()
    return HostStatistics(
        at=clock.now(),
        uptime_s=round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
        cpus=tuple(HostCpu(index=index, seconds=s) for index, s in sorted(cpu_seconds().items())),
        memory_total_bytes=memory.total_bytes,
        memory_available_bytes=memory.available_bytes,
        memory_promised_bytes=promised_bytes,
        vmkernel_resident_bytes=resident_bytes("self"),
        waited_seconds=pressure_seconds(),
        disks=tuple(
            HostDiskStatistics(
                device=device,
                read=IoStatistics(
                    operations=d.read_operations, bytes=d.read_bytes, seconds=d.read_seconds
                ),
                write=IoStatistics(
                    operations=d.write_operations, bytes=d.write_bytes, seconds=d.write_seconds
                ),
                busy_seconds=d.busy_seconds,
            )
            for device, d in sorted(block_counters().items())
        ),
        links=_links(),
        datastores=datastores,
    )


def _links() -> tuple[LinkStatistics, ...]:
    net = SYS / "class/net"
    taps = {name for name in subfolders(net) if (net / name / "tun_flags").exists()}
    return tuple(
        LinkStatistics(
            name=name,
            received_bytes=link.received_bytes,
            received_packets=link.received_packets,
            received_dropped=link.received_dropped,
            received_errors=link.received_errors,
            sent_bytes=link.sent_bytes,
            sent_packets=link.sent_packets,
            sent_dropped=link.sent_dropped,
            sent_errors=link.sent_errors,
        )
        for name, link in sorted(interface_counters().items())
        if name != "lo" and name not in taps
    )
