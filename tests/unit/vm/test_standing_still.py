"""Guests that stand still without being asked to: full datastores, datastores that go away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.framework.running import on_loop
from vmkernel.model import DiskSpec, OperationState, VmAction, VmState
from vmkernel.qemu import DiskError, RunState
from vmkernel.vm.machine import disk_full as space

from .test_driver import state
from .world import World


async def _with_disk(root: Path) -> World:
    world = World(root)
    world.storage.add_volume("disk", datastore="second")
    await world.vms.start()
    await world.create(disks=(DiskSpec(volume="disk"),))
    await world.act(VmAction.START)
    return world


async def _until(world: World, wanted: VmState) -> None:
    await world.until(lambda: state(world) is wanted)


def _fill(world: World) -> None:
    world.qemu().say(DiskError("disk0", no_space=True, detail="No space left"))
    world.qemu().pause(RunState.IO_ERROR)


@on_loop
async def test_it_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 0
    monkeypatch.setattr(space, "free_bytes", lambda _: (1 << 30, free))
    world = await _with_disk(tmp_path)
    _fill(world)
    await _until(world, VmState.PAUSED)
    await asyncio.sleep(0.1)
    assert state(world) is VmState.PAUSED
    # The disk is on another datastore than the VM.
    assert "no space is left on datastore second; " in (
        world.vms.inventory.get("web").status.reason or ""
    )
    assert len(world.events("vm.disk-full")) == 1
    free = 1 << 30
    await _until(world, VmState.RUNNING)
    assert world.qemu().status is RunState.RUNNING
    assert world.vms.inventory.get("web").status.reason is None
    assert len(world.events("vm.disk-space")) == 1
    await world.vms.stop()


@on_loop
async def test_a_new_vmkernel_sees_why_it_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 0
    monkeypatch.setattr(space, "free_bytes", lambda _: (1 << 30, free))
    world = await _with_disk(tmp_path)
    _fill(world)
    await _until(world, VmState.PAUSED)
    world.qemu().replies["query-block"] = [{"device": "disk0", "io-status": "nospace"}]
    await world.restart()
    assert state(world) is VmState.PAUSED
    # The disk is on another datastore than the VM.
    assert "no space is left on datastore second; " in (
        world.vms.inventory.get("web").status.reason or ""
    )
    free = 1 << 30
    await _until(world, VmState.RUNNING)
    await world.vms.stop()


@on_loop
async def test_whoever_paused_it_lets_it_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Space is no reason to wake a VM that somebody put to rest; resume tries at once."""
    monkeypatch.setattr(space, "free_bytes", lambda _: (1 << 30, 0))
    world = await _with_disk(tmp_path)
    _fill(world)
    await _until(world, VmState.PAUSED)
    assert (await world.act(VmAction.RESUME)).state is OperationState.SUCCEEDED
    await world.act(VmAction.PAUSE)
    monkeypatch.setattr(space, "free_bytes", lambda _: (1 << 30, 1 << 30))
    await asyncio.sleep(0.2)
    assert state(world) is VmState.PAUSED
    await world.vms.stop()


def test_how_long_between_two_looks() -> None:
    shortage = space.EnospcBackoff()
    assert [shortage.begin(now_s=1.0) for _ in range(6)] == [5, 10, 20, 40, 60, 60]
    assert shortage.begin(now_s=1000.0) == 5


@on_loop
async def test_a_datastore_that_goes_away_marks_its_vms_only(tmp_path: Path) -> None:
    world = await _with_disk(tmp_path)
    await world.create("other", datastore="main")
    await world.act(VmAction.START, "other")
    await world.create("off", datastore="second")
    world.storage.change("second", available=False)
    await world.quiet()
    assert "second" in (world.vms.inventory.get("web").status.reason or "")
    assert state(world) is VmState.RUNNING
    assert world.vms.inventory.get("other").status.reason is None
    assert world.vms.inventory.get("off").status.state is VmState.UNUSABLE
    assert [e.subject.id for e in world.events("vm.datastore-lost")] == ["web"]
    world.storage.change("second", available=True)
    await world.quiet()
    assert world.vms.inventory.get("web").status.reason is None
    assert world.vms.inventory.get("off").status.state is VmState.STOPPED
    await world.vms.stop()


@on_loop
async def test_what_ends_without_its_datastore_is_set_aside(tmp_path: Path) -> None:
    world = await _with_disk(tmp_path)
    world.storage.change("main", available=False)
    world.qemu().die()
    await _until(world, VmState.UNUSABLE)
    world.storage.change("main", available=True)
    await _until(world, VmState.STOPPED)
    await world.vms.stop()


def test_room_is_looked_for_where_the_disk_s_file_lies(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    disk.write_bytes(b"")
    assert space.has_room([disk])
    with pytest.raises(OSError, match="No such file"):
        space.has_room([tmp_path / "gone" / "disk.qcow2"])
