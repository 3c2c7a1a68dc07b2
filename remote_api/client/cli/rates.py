"""From two readings of counters to rates; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from vmkernel.model import HostStatistics, IoStatistics, VmStatistics

__all__ = ["HostRates", "IoRates", "VmRates", "host_rates", "vm_rates"]

_IDLE = ("idle", "iowait")


@dataclass(frozen=True)
class IoRates:
    """Disks in one direction."""

    operations_s: float
    bytes_s: float
    latency_s: float | None
    """The mean of the operations between the readings; None if there were none."""


@dataclass(frozen=True)
class VmRates:
    """A VM between two readings."""

    cpu: float
    """Processors of the host in use: 1.0 is one of them."""
    waiting: float
    """Virtual processors that were ready and got none."""
    read: IoRates
    write: IoRates
    received_bytes_s: float | None
    sent_bytes_s: float | None


@dataclass(frozen=True)
class HostRates:
    """The host between two readings."""

    cpu: float
    """Processors in use."""
    read_bytes_s: float
    write_bytes_s: float
    received_bytes_s: float
    sent_bytes_s: float


def vm_rates(before: VmStatistics, after: VmStatistics) -> VmRates | None:
    """The rates; None if the VM wasn't running at both readings, or was started between them."""
    seconds = _seconds(before.at, after.at)
    if seconds <= 0 or after.started_at is None or before.started_at != after.started_at:
        return None
    waited = _sum(v.waited_seconds for v in after.vcpus) - _sum(
        v.waited_seconds for v in before.vcpus
    )
    return VmRates(
        cpu=_rate(before.cpu_seconds, after.cpu_seconds, seconds),
        waiting=max(0.0, waited) / seconds,
        read=_io([d.read for d in before.disks], [d.read for d in after.disks], seconds),
        write=_io([d.write for d in before.disks], [d.write for d in after.disks], seconds),
        received_bytes_s=_counted(
            [n.received_bytes for n in before.nics], [n.received_bytes for n in after.nics], seconds
        ),
        sent_bytes_s=_counted(
            [n.sent_bytes for n in before.nics], [n.sent_bytes for n in after.nics], seconds
        ),
    )


def host_rates(before: HostStatistics, after: HostStatistics) -> HostRates | None:
    """The rates; None if the host was started between the readings."""
    seconds = _seconds(before.at, after.at)
    if seconds <= 0 or after.uptime_s < before.uptime_s:
        return None
    return HostRates(
        cpu=_rate(_busy(before), _busy(after), seconds),
        read_bytes_s=_rate(
            _sum(d.read.bytes for d in before.disks),
            _sum(d.read.bytes for d in after.disks),
            seconds,
        ),
        write_bytes_s=_rate(
            _sum(d.write.bytes for d in before.disks),
            _sum(d.write.bytes for d in after.disks),
            seconds,
        ),
        received_bytes_s=_rate(
            _sum(i.received_bytes for i in before.links),
            _sum(i.received_bytes for i in after.links),
            seconds,
        ),
        sent_bytes_s=_rate(
            _sum(i.sent_bytes for i in before.links),
            _sum(i.sent_bytes for i in after.links),
            seconds,
        ),
    )


def _busy(host: HostStatistics) -> float:
    return _sum(
        seconds for cpu in host.cpus for mode, seconds in cpu.seconds.items() if mode not in _IDLE
    )


def _io(before: list[IoStatistics], after: list[IoStatistics], seconds: float) -> IoRates:
    operations = max(0.0, _sum(i.operations for i in after) - _sum(i.operations for i in before))
    took = max(0.0, _sum(i.seconds for i in after) - _sum(i.seconds for i in before))
    return IoRates(
        operations_s=operations / seconds,
        bytes_s=_rate(_sum(i.bytes for i in before), _sum(i.bytes for i in after), seconds),
        latency_s=took / operations if operations else None,
    )


def _counted(before: list[int | None], after: list[int | None], seconds: float) -> float | None:
    known = [value for value in after if value is not None]
    if not known:
        return None
    return _rate(_sum(value or 0 for value in before), _sum(known), seconds)


def _rate(before: float, after: float, seconds: float) -> float:
    """A counter that is smaller than before has restarted from zero."""
    return max(0.0, after - before) / seconds


def _sum(values: Iterable[float]) -> float:
    return float(sum(values))


def _seconds(before: str, after: str) -> float:
    return (datetime.fromisoformat(after) - datetime.fromisoformat(before)).total_seconds()
