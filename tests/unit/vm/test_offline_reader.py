"""The disks of a VM that is off, read by a QEMU whose guest never runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.framework.running import on_loop
from tests.unit.vm.test_driver import state
from tests.unit.vm.world import World
from vmkernel.model import (
    DiskSpec,
    ErrorCode,
    MicaError,
    NicSpec,
    OperationState,
    VmAction,
    VmState,
    VolumeFormat,
)
from vmkernel.qemu import RunState
from vmkernel.vm.backup.offline_reader import OfflineDiskReader, checkpoints_of, forget_checkpoint
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.store.launch_record import read_record


@asynccontextmanager
async def off(root: Path) -> AsyncIterator[World]:
    """A VM that is off, with a qcow2 disk."""
    world = World(root)
    volume = world.storage.add_volume("data")
    world.storage.volumes["data"] = replace(volume, format=VolumeFormat.QCOW2)
    await world.vms.start()
    try:
        await world.create(disks=(DiskSpec(volume="data"),), nics=(NicSpec(),), template=True)
        yield world
    finally:
        await world.operations.close()
        await world.vms.stop()


def driver(world: World) -> VmDriver:
    return world.vms.inventory.driver("web")


@on_loop
async def test_a_guest_that_never_runs_reads_them(tmp_path: Path) -> None:
    async with off(tmp_path) as world:
        still = await OfflineDiskReader.open(driver(world))
        arguments = " ".join(world.qemu().request.arguments)
        assert "data.raw" in arguments
        assert "netdev" not in arguments
        assert world.qemu().status is RunState.PRELAUNCH
        assert state(world) is VmState.STOPPED
        assert world.vms.usage.volume_is_open("data")
        world.storage.change("main", False)
        world.storage.change("main", True)
        assert state(world) is VmState.STOPPED, "nothing is set aside that has files open"
        await still.close()
        await still.close()
        assert world.launcher.qemus == {}
        assert not world.vms.usage.volume_is_open("data")
        assert world.host.admission.promised_bytes == 0
        assert read_record(world.host.folder("web").record) is None
        assert not world.events("vm.state")


@on_loop
async def test_one_that_hangs_is_killed(tmp_path: Path) -> None:
    async with off(tmp_path) as world:
        still = await OfflineDiskReader.open(driver(world))
        world.qemu().hangs = True
        await still.close()
        assert world.launcher.qemus == {}
        assert not world.vms.usage.volume_is_open("data")


@on_loop
async def test_what_cannot_be_tidied_up_holds_no_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with off(tmp_path) as world:
        still = await OfflineDiskReader.open(driver(world))

        async def fail(_: str) -> None:
            raise MicaError(ErrorCode.UNAVAILABLE, "systemctl failed")

        monkeypatch.setattr(world.launcher, "collect", fail)
        await still.close()
        monkeypatch.undo()
        assert not world.vms.usage.volume_is_open("data")
        assert world.host.admission.promised_bytes == 0


@on_loop
async def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    async with off(tmp_path) as world:
        world.launcher.fail_next = "no disk"
        with pytest.raises(MicaError, match="no disk"):
            await OfflineDiskReader.open(driver(world))
        assert state(world) is VmState.STOPPED
        assert not world.vms.usage.volume_is_open("data")
        assert world.host.admission.promised_bytes == 0


@on_loop
async def test_a_vmkernel_that_comes_later_ends_it(tmp_path: Path) -> None:
    """Its guest, which has no memory to speak of, must not be let run."""
    async with off(tmp_path) as world:
        await OfflineDiskReader.open(driver(world))
        qemu = world.qemu()
        await world.restart()
        await driver(world).ready()
        assert not qemu.alive
        assert qemu.code is None, "in order: it keeps checkpoints in the disks"
        assert qemu.status is RunState.PRELAUNCH
        assert state(world) is VmState.STOPPED
        assert not world.vms.usage.volume_is_open("data")


@on_loop
async def test_a_start_ends_one_that_was_left(tmp_path: Path) -> None:
    async with off(tmp_path) as world:
        vm = world.vms.inventory.get("web")
        await world.vms.changes.update(
            "web", replace(vm.spec, template=False), vm.revision, actor="test"
        )
        await OfflineDiskReader.open(driver(world))
        assert (await world.act(VmAction.START)).state is OperationState.SUCCEEDED
        with pytest.raises(MicaError, match="running"):
            await OfflineDiskReader.open(driver(world))
        await world.act(VmAction.POWER_OFF)
        assert not world.vms.usage.volume_is_open("data")


@on_loop
async def test_checkpoints_in_the_disks(tmp_path: Path) -> None:
    async with off(tmp_path) as world:
        path = world.storage.volumes["data"].path
        world.storage.qemu_img.marks[path] = {"checkpoint-monday", "of somebody else"}
        found = await checkpoints_of(driver(world))
        assert [(d.key, d.usable) for d in found["monday"]] == [("disk0", True)]
        assert list(found) == ["monday"]
        await forget_checkpoint(driver(world), "monday")
        assert world.storage.qemu_img.marks[path] == {"of somebody else"}
        with pytest.raises(MicaError) as caught:
            await forget_checkpoint(driver(world), "monday")
        assert caught.value.problem.code is ErrorCode.NOT_FOUND


@on_loop
async def test_its_guest_never_runs_even_where_its_vm_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with off(tmp_path) as world:
        await OfflineDiskReader.open(driver(world))
        qemu = world.qemu()
        tries = [1]

        def find(_: Path) -> None:
            if tries:
                tries.pop()
                raise OSError("the datastore hiccups")

        monkeypatch.setattr("vmkernel.vm.store.saved_memory.find", find)
        await world.restart()
        async with asyncio.timeout(10):
            while state(world) is not VmState.STOPPED:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert qemu.status is RunState.PRELAUNCH
        assert not qemu.alive
