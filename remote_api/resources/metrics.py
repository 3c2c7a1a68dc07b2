"""Statistics of the host and its VMs in Prometheus' text format.

Names, units and types keep Prometheus' conventions (prometheus.io/docs/practices/naming and
docs/instrumenting/exposition_formats): base units, `_total` on counters, one `HELP` and `TYPE` per
family, its samples together. What isn't counted has no sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from remote_api.http.exchange import ConnectionFigures
from vmkernel.control.requests import AllStatistics
from vmkernel.model import (
    LATENCY_BOUNDS_S,
    HostDiskStatistics,
    HostStatistics,
    IoStatistics,
    LinkStatistics,
    VmState,
    VmStatistics,
)
from vmkernel.version import __version__

__all__ = ["render"]

_OPERATIONS = ("read", "write", "flush", "discard")
_GUEST_GAUGES = ("total", "available", "free", "cached")

Sample = tuple[dict[str, str], float | None]


class _Page:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
        """A gauge or a counter with all its samples; omitted if it has none."""
        lines = [
            f"{name}{_labels(labels)} {_number(value)}"
            for labels, value in samples
            if value is not None
        ]
        if lines:
            self._lines += (f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines)

    def gauge(self, name: str, text: str, samples: Iterable[Sample]) -> None:
        """Present values."""
        self.family(name, "gauge", text, samples)

    def counter(self, name: str, text: str, samples: Iterable[Sample]) -> None:
        """Values that only grow."""
        self.family(name, "counter", text, samples)

    def histogram(
        self, name: str, text: str, samples: Iterable[tuple[dict[str, str], tuple[int, ...]]]
    ) -> None:
        """Counts by latency; they have no sum, because QEMU counts from another moment on."""
        lines: list[str] = []
        bounds = [*(f"{bound:g}" for bound in LATENCY_BOUNDS_S), "+Inf"]
        for labels, counts in samples:
            if len(counts) != len(bounds):
                continue
            total = 0
            for bound, count in zip(bounds, counts, strict=True):
                total += count
                lines.append(f"{name}_bucket{_labels({**labels, 'le': bound})} {total}")
            lines.append(f"{name}_count{_labels(labels)} {total}")
        if lines:
            self._lines += (f"# HELP {name} {text}", f"# TYPE {name} histogram", *lines)

    def text(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()


def render(figures: AllStatistics, connections: ConnectionFigures | None = None) -> bytes:
    """The page; with this process's connections if they are counted."""
    page = _Page()
    page.gauge("mica_build_info", "The version of Mica.", [({"version": __version__}, 1)])
    _host(page, figures.host)
    _inventory(page, figures)
    _machines(page, figures.vms)
    _disks(page, figures.vms)
    _nics(page, figures.vms)
    if connections is not None:
        _connections(page, connections)
    return page.text()


def _connections(page: _Page, figures: ConnectionFigures) -> None:
    page.gauge(
        "mica_api_connections",
        "The API's connections: waiting, in the TLS handshake, unauthenticated, authenticated.",
        (({"kind": kind}, count) for kind, count in figures.open.items()),
    )
    page.counter(
        "mica_api_turned_away_total",
        "Connections that the API has closed, by reason.",
        (({"reason": reason}, count) for reason, count in sorted(figures.ended.items())),
    )


def _host(page: _Page, host: HostStatistics) -> None:
    page.gauge(
        "mica_host_uptime_seconds",
        "Seconds since the host's kernel started.",
        [({}, host.uptime_s)],
    )
    page.counter(
        "mica_host_cpu_seconds_total",
        "CPU time of the host, by state.",
        (
            ({"cpu": str(cpu.index), "mode": mode}, seconds)
            for cpu in host.cpus
            for mode, seconds in cpu.seconds.items()
        ),
    )
    for name, text, value in (
        ("host_memory_size", "The host's memory.", host.memory_total_bytes),
        ("host_memory_available", "Memory that is available now.", host.memory_available_bytes),
        ("host_memory_promised", "Memory promised to VMs.", host.memory_promised_bytes),
        (
            "vmkernel_resident_memory",
            "Memory that the vmkernel uses.",
            host.vmkernel_resident_bytes,
        ),
    ):
        page.gauge(f"mica_{name}_bytes", text, [({}, value)])
    page.counter(
        "mica_host_pressure_waiting_seconds_total",
        "How long at least one task waited for a resource.",
        (({"resource": what}, seconds) for what, seconds in host.waited_seconds.items()),
    )
    _host_disks(page, host.disks)
    _links(page, host.links)
    for name, text in (
        ("capacity", "The size of a datastore."),
        ("free", "The free space of a datastore."),
    ):
        page.gauge(
            f"mica_datastore_{name}_bytes",
            text,
            (({"datastore": d.id}, getattr(d, f"{name}_bytes")) for d in host.datastores),
        )


def _host_disks(page: _Page, disks: tuple[HostDiskStatistics, ...]) -> None:
    for name, text, field in (
        ("operations_total", "Operations of the host's disks.", "operations"),
        ("bytes_total", "Bytes that the host's disks moved.", "bytes"),
        ("operation_seconds_total", "The total duration of those operations.", "seconds"),
    ):
        page.counter(
            f"mica_host_disk_{name}",
            text,
            (
                ({"device": d.device, "operation": kind}, getattr(getattr(d, kind), field))
                for d in disks
                for kind in ("read", "write")
            ),
        )
    page.counter(
        "mica_host_disk_busy_seconds_total",
        "Time with at least one operation in progress.",
        (({"device": d.device}, d.busy_seconds) for d in disks),
    )


def _links(page: _Page, links: tuple[LinkStatistics, ...]) -> None:
    for name, field in (("receive", "received"), ("transmit", "sent")):
        for unit in ("bytes", "packets", "dropped", "errors"):
            page.counter(
                f"mica_host_network_{name}_{unit}_total",
                f"The host's interfaces: {field} {unit}.",
                (({"device": link.name}, getattr(link, f"{field}_{unit}")) for link in links),
            )


def _inventory(page: _Page, figures: AllStatistics) -> None:
    count = Counter(figures.states.values())
    page.gauge(
        "mica_vms",
        "The number of VMs in a state.",
        (({"state": state.value}, count[state]) for state in VmState),
    )
    page.gauge(
        "mica_vm_state",
        "1 for the state that a VM is in.",
        (({"vm": vm, "state": state.value}, 1) for vm, state in sorted(figures.states.items())),
    )


def _machines(page: _Page, vms: tuple[VmStatistics, ...]) -> None:
    page.gauge(
        "mica_vm_statistics_complete",
        "0 if a VM's QEMU did not answer in time: its disks are missing then.",
        (({"vm": vm.id}, int(vm.complete)) for vm in vms),
    )
    page.gauge(
        "mica_vm_start_time_seconds",
        "When the VM was started, since the epoch.",
        (
            ({"vm": vm.id}, datetime.fromisoformat(vm.started_at).timestamp())
            for vm in vms
            if vm.started_at is not None
        ),
    )
    page.counter(
        "mica_vm_cpu_seconds_total",
        "CPU time of the VM's whole process.",
        (({"vm": vm.id}, vm.cpu_seconds) for vm in vms),
    )
    for name, text, field in (
        ("seconds", "CPU time of a vCPU.", "seconds"),
        ("wait_seconds", "Time that a vCPU was ready to run but had no CPU.", "waited_seconds"),
    ):
        page.counter(
            f"mica_vm_vcpu_{name}_total",
            text,
            (
                ({"vm": vm.id, "vcpu": str(vcpu.index)}, getattr(vcpu, field))
                for vm in vms
                for vcpu in vm.vcpus
            ),
        )
    for name, text in (
        ("assigned", "Memory that the VM's spec assigns."),
        ("resident", "Host memory that the VM's process uses."),
        ("balloon", "Memory that the balloon leaves to the guest."),
    ):
        page.gauge(
            f"mica_vm_memory_{name}_bytes",
            text,
            (({"vm": vm.id}, getattr(vm.memory, f"{name}_bytes")) for vm in vms),
        )
    _guest_memory(page, vms)


def _guest_memory(page: _Page, vms: tuple[VmStatistics, ...]) -> None:
    told = [(vm.id, vm.memory.guest) for vm in vms if vm.memory.guest is not None]
    for name in _GUEST_GAUGES:
        page.gauge(
            f"mica_vm_guest_memory_{'size' if name == 'total' else name}_bytes",
            f"Reported by the guest: {name}.",
            (({"vm": vm}, getattr(guest, f"{name}_bytes")) for vm, guest in told),
        )
    for way in ("in", "out"):
        page.counter(
            f"mica_vm_guest_memory_swapped_{way}_bytes_total",
            f"Reported by the guest: swapped {way}.",
            (({"vm": vm}, getattr(guest, f"swapped_{way}_bytes")) for vm, guest in told),
        )
    page.counter(
        "mica_vm_guest_memory_faults_total",
        "Reported by the guest: page faults.",
        (
            ({"vm": vm, "kind": kind}, getattr(guest, f"{kind}_faults"))
            for vm, guest in told
            for kind in ("major", "minor")
        ),
    )


def _flows(
    vms: tuple[VmStatistics, ...],
) -> Iterator[tuple[dict[str, str], IoStatistics]]:
    for vm in vms:
        for disk in vm.disks:
            for kind in _OPERATIONS:
                yield {"vm": vm.id, "disk": disk.key, "operation": kind}, getattr(disk, kind)


def _disks(page: _Page, vms: tuple[VmStatistics, ...]) -> None:
    flows = list(_flows(vms))
    for name, text, field in (
        ("operations", "Operations of virtual disks.", "operations"),
        ("bytes", "Bytes that virtual disks moved.", "bytes"),
        ("operation_seconds", "The total duration of those operations.", "seconds"),
        ("failures", "Operations that failed.", "failed"),
    ):
        page.counter(
            f"mica_vm_disk_{name}_total",
            text,
            ((labels, getattr(flow, field)) for labels, flow in flows),
        )
    page.histogram(
        "mica_vm_disk_latency_seconds",
        "Duration of the operations of virtual disks, since these statistics were first requested.",
        ((labels, flow.latency_counts) for labels, flow in flows),
    )


def _nics(page: _Page, vms: tuple[VmStatistics, ...]) -> None:
    for name, field in (("receive", "received"), ("transmit", "sent")):
        for unit in ("bytes", "packets", "dropped"):
            page.counter(
                f"mica_vm_network_{name}_{unit}_total",
                f"Virtual NICs, as the guest sees them: {field} {unit}.",
                (
                    ({"vm": vm.id, "nic": nic.key}, getattr(nic, f"{field}_{unit}"))
                    for vm in vms
                    for nic in vm.nics
                ),
            )


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
