"""What QEMU counts of a guest: its disks, its balloon.

Sources: `query-blockstats`, `block-latency-histogram-set` (qapi/block-core.json), `query-balloon`
(qapi/machine.json), and the balloon's property `guest-stats`
(docs/interop/virtio-balloon-stats.rst).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from vmkernel import clock
from vmkernel.model import LATENCY_BOUNDS_S, DiskStatistics, GuestMemory, IoStatistics
from vmkernel.qemu.errors import QmpCommandError
from vmkernel.qemu.session import Qmp

__all__ = ["balloon_statistics", "disk_statistics"]

_PERIPHERAL = "/machine/peripheral/"
_NOT_TOLD = (1 << 64) - 1
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
    """Every disk and CD-ROM drive, by its key.

    A disk that has no histogram yet gets one: it counts from now on.
    """
    found = []
    for entry in await qmp.execute("query-blockstats", timeout_s=_TIMEOUT_S):
        path = str(entry.get("qdev", ""))
        if not path.startswith(_PERIPHERAL):
            continue
        stats = entry["stats"]
        if "rd_latency_histogram" not in stats:
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


def _flow(stats: Mapping[str, Any], prefix: str) -> IoStatistics:
    histogram = stats.get(f"{prefix}_latency_histogram", {})
    return IoStatistics(
        operations=int(stats.get(f"{prefix}_operations", 0)),
        bytes=int(stats.get(f"{prefix}_bytes", 0)),
        seconds=int(stats.get(f"{prefix}_total_time_ns", 0)) / 1e9,
        failed=int(stats.get(f"failed_{prefix}_operations", 0)),
        latency_counts=tuple(int(count) for count in histogram.get("bins", ())),
    )


async def balloon_statistics(qmp: Qmp, device_id: str) -> tuple[int | None, GuestMemory | None]:
    """What the balloon leaves to the guest, and the guest's own figures where it tells them."""
    try:
        answer = await qmp.execute("query-balloon", timeout_s=_TIMEOUT_S)
        told = await qmp.execute(
            "qom-get",
            {"path": _PERIPHERAL + device_id, "property": "guest-stats"},
            timeout_s=_TIMEOUT_S,
        )
        if not told.get("last-update"):
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
    actual = int(answer["actual"])
    return actual, _guest(told) if told.get("last-update") else None


def _guest(told: Mapping[str, Any]) -> GuestMemory:
    figures: dict[str, int] = {}
    for name, stat in _GUEST.items():
        value = told["stats"].get(stat)
        # QEMU tells "unknown" as the largest number, or as -1.
        if isinstance(value, int) and 0 <= value < _NOT_TOLD:
            figures[name] = value
    return GuestMemory(updated_at=clock.format_time(told["last-update"]), **figures)
