"""Figures of VMs: what is asked of QEMU, how often, and what a slow one costs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.framework.running import on_loop
from vmkernel.model import LATENCY_BOUNDS_S, MicaError, VmAction, VmState
from vmkernel.qemu import QmpCommandError
from vmkernel.vm.statistics import VmMetrics

from .fake_qemu import FakeQemu, FakeQmp
from .test_driver import running

NANO = 1_000_000_000


def _blockstats(*, histogram: bool) -> list[dict[str, Any]]:
    stats: dict[str, Any] = {
        "rd_operations": 7,
        "rd_bytes": 4096,
        "rd_total_time_ns": NANO // 2,
        "wr_operations": 3,
        "wr_bytes": 512,
        "wr_total_time_ns": NANO,
        "failed_wr_operations": 1,
        "flush_operations": 2,
        "unmap_operations": 4,
    }
    if histogram:
        stats["rd_latency_histogram"] = {"bins": [7, *[0] * len(LATENCY_BOUNDS_S)]}
    return [
        {"node-name": "firmware-code", "stats": {}},
        {"qdev": "/machine/peripheral/disk10/virtio-backend", "stats": stats},
        {"qdev": "/machine/peripheral/disk2", "stats": stats},
    ]


def _tells(qemu: FakeQemu, **more: Any) -> None:
    guest = {
        "last-update": 1767225600,
        "stats": {
            "stat-total-memory": 1000,
            "stat-available-memory": 600,
            "stat-free-memory": -1,
            "stat-disk-caches": (1 << 64) - 1,
        },
    }
    qemu.replies |= {
        "query-blockstats": _blockstats(histogram=False),
        "query-balloon": {"actual": 1 << 28},
        "qom-get": guest,
        **more,
    }


@on_loop
async def test_figures_of_a_vm_that_runs(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        qemu = world.qemu()
        _tells(qemu)
        figures = await VmMetrics(world.vms.inventory).one("web")
        assert (figures.state, figures.complete) == (VmState.RUNNING, True)
        assert figures.memory.balloon_bytes == 1 << 28
        assert figures.memory.resident_bytes > 0
        assert figures.cpu_seconds > 0
        guest = figures.memory.guest
        assert guest is not None
        assert (guest.updated_at, guest.available_bytes) == ("2026-01-01T00:00:00.000Z", 600)
        assert (guest.free_bytes, guest.cached_bytes) == (None, None)
        assert [disk.key for disk in figures.disks] == ["disk2", "disk10"]
        disk = figures.disks[0]
        assert (disk.read.operations, disk.read.bytes, disk.read.seconds) == (7, 4096, 0.5)
        assert (disk.write.failed, disk.flush.operations, disk.discard.operations) == (1, 2, 4)
        begun = [a for name, a in qemu.commands if name == "block-latency-histogram-set"]
        assert [each["id"] for each in begun] == [
            "/machine/peripheral/disk10/virtio-backend",
            "/machine/peripheral/disk2",
        ]
        assert begun[0]["boundaries"][0] == 100_000
        qemu.replies["query-blockstats"] = _blockstats(histogram=True)
        qemu.commands.clear()
        again = await VmMetrics(world.vms.inventory).one("web")
        assert again.disks[0].read.latency_counts[0] == 7
        assert "block-latency-histogram-set" not in [name for name, _ in qemu.commands]


@on_loop
async def test_a_guest_that_tells_nothing_is_asked_to(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        _tells(world.qemu(), **{"qom-get": {"last-update": 0, "stats": {}}})
        figures = await VmMetrics(world.vms.inventory).one("web")
        assert figures.memory.guest is None
        assert world.qemu().commands[-1][0] == "qom-set"
        _tells(world.qemu(), **{"query-balloon": QmpCommandError("no balloon")})
        figures = await VmMetrics(world.vms.inventory).one("web")
        assert (figures.complete, figures.memory.balloon_bytes) == (True, None)


@on_loop
async def test_a_vm_that_is_off_has_zeros(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.act(VmAction.POWER_OFF)
        figures = await VmMetrics(world.vms.inventory).one("web")
        assert (figures.state, figures.disks, figures.cpu_seconds) == (VmState.STOPPED, (), 0)
        assert figures.memory.assigned_bytes > 0
        assert await VmMetrics(world.vms.inventory).running() == ()
        with pytest.raises(MicaError, match="no VM"):
            await VmMetrics(world.vms.inventory).one("none")


@on_loop
async def test_many_askers_cost_one_collection(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        _tells(world.qemu())
        figures = VmMetrics(world.vms.inventory, kept_s=0.1)
        found = await asyncio.gather(*(figures.running() for _ in range(20)))
        assert all(each == found[0] for each in found)
        asked = [name for name, _ in world.qemu().commands]
        assert asked.count("query-blockstats") == 1
        await asyncio.sleep(0.15)
        await figures.running()
        asked = [name for name, _ in world.qemu().commands]
        assert asked.count("query-blockstats") == 2


@on_loop
async def test_a_qemu_that_hangs_costs_its_own_disks(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        answer = asyncio.Event()

        class Hanging(FakeQmp):
            async def ask(self, *_: Any, **__: Any) -> Any:
                await answer.wait()
                return []

        world.qemu().sessions[0].__class__ = Hanging
        figures = VmMetrics(world.vms.inventory, timeout_s=0.1)
        (web,) = await figures.running()
        assert (web.complete, web.disks) == (False, ())
        assert web.memory.resident_bytes > 0
        answer.set()
        await world.quiet()


@on_loop
async def test_a_qemu_that_talks_nonsense_costs_its_own_figures(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        figures = VmMetrics(world.vms.inventory, kept_s=0)
        for nonsense in ([{"qdev": "/machine/peripheral/disk0"}], [1], {"a": 1}, None):
            world.qemu().replies["query-blockstats"] = nonsense
            (web,) = await figures.running()
            assert not web.complete
