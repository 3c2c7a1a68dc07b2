"""QEMU's counters of a guest: its disks, its balloon.

Sources: `query-blockstats`, `block-latency-histogram-set` (qapi/block-core.json), `query-balloon`
(qapi/machine.json), and the balloon's property `guest-stats`
(docs/interop/virtio-balloon-stats.rst).
"""

from __future__ import annotations

import contextlib

from vmkernel import clock
from vmkernel.model import LATENCY_BOUNDS_S, DiskStatistics, GuestMemory, IoStatistics
from vmkernel.qemu.answers import Balloon, BlockStatistics, Flows, GuestStatistics, Histogram
from vmkernel.qemu.errors import QmpCommandError
from vmkernel.qemu.session import Qmp

__all__ = ["balloon_statistics", "disk_statistics"]

_PERIPHERAL = "/machine/peripheral/"
_COUNT_MAX = (1 << 63) - 1
_POLL_S = 10
_TIMEOUT_S = 5.0
_FLOWS = {"read": "rd", "write": "wr", "flush": "flush", "discard": "unmap"}
_GUEST = {
    "total_bytes": "stat-total-memory",
    "available_bytes": "stat-available-memory",
    "free_bytes": "stat-free-memory",
    "cached_bytes": "stat-disk-caches",
    "swapped_in_bytes": "stat-swap-in",
    "swapped_out_bytes": "stat-swap-out",
    "major_faults": "stat-major-faults",
    "minor_faults": "stat-minor-faults",
}


async def disk_statistics(qmp: Qmp) -> tuple[DiskStatistics, ...]:
    """Every disk and CD-ROM drive, by its key. A disk without a histogram gets one: it counts from
    now on.
    """
    found = []
    for entry in await qmp.ask(
        "query-blockstats", tuple[BlockStatistics, ...], timeout_s=_TIMEOUT_S
    ):
        path = entry.qdev
        if not path.startswith(_PERIPHERAL):
            continue
        stats = entry.stats
        if stats.rd_latency_histogram is None:
            await _begin_histogram(qmp, path)
        key = path.removeprefix(_PERIPHERAL).partition("/")[0]
        flows = {name: _flow(stats, prefix) for name, prefix in _FLOWS.items()}
        found.append(DiskStatistics(key=key, **flows))
    return tuple(sorted(found, key=lambda disk: (len(disk.key), disk.key)))


async def _begin_histogram(qmp: Qmp, path: str) -> None:
    bounds = [round(bound * 1e9) for bound in LATENCY_BOUNDS_S]
    with contextlib.suppress(QmpCommandError):  # a drive without a disc counts nothing
        await qmp.execute(
            "block-latency-histogram-set", {"id": path, "boundaries": bounds}, timeout_s=_TIMEOUT_S
        )


def _flow(stats: Flows, prefix: str) -> IoStatistics:
    histogram: Histogram | None = getattr(stats, f"{prefix}_latency_histogram")
    nanoseconds: int = getattr(stats, f"{prefix}_total_time_ns")
    return IoStatistics(
        operations=getattr(stats, f"{prefix}_operations"),
        bytes=getattr(stats, f"{prefix}_bytes"),
        seconds=nanoseconds / 1e9,
        failed=getattr(stats, f"failed_{prefix}_operations"),
        latency_counts=histogram.bins if histogram is not None else (),
    )


async def balloon_statistics(qmp: Qmp, device_id: str) -> tuple[int | None, GuestMemory | None]:
    """What the balloon leaves to the guest, and the guest's own values if it reports them."""
    try:
        answer = await qmp.ask("query-balloon", Balloon, timeout_s=_TIMEOUT_S)
        told = await qmp.ask(
            "qom-get",
            GuestStatistics,
            {"path": _PERIPHERAL + device_id, "property": "guest-stats"},
            timeout_s=_TIMEOUT_S,
        )
        if not told.last_update:
            await qmp.execute(
                "qom-set",
                {
                    "path": _PERIPHERAL + device_id,
                    "property": "guest-stats-polling-interval",
                    "value": _POLL_S,
                },
                timeout_s=_TIMEOUT_S,
            )
    except QmpCommandError:
        return None, None
    return answer.actual, _guest(told) if told.last_update else None


def _guest(told: GuestStatistics) -> GuestMemory:
    figures: dict[str, int] = {}
    for name, stat in _GUEST.items():
        value = told.stats.get(stat)
        # QEMU tells "unknown" as the largest number, or as -1.
        if isinstance(value, int) and 0 <= value <= _COUNT_MAX:
            figures[name] = value
    return GuestMemory(updated_at=clock.format_time(told.last_update), **figures)
