"""Snapshots: the tree, going back, what is refused, and a crash or failure at every step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.framework.running import on_loop
from vmkernel.model import (
    DiskSpec,
    ErrorCode,
    MicaError,
    Operation,
    OperationState,
    SnapshotSpec,
    SnapshotState,
    SnapshotStatus,
    VmAction,
    VmState,
    VolumeFormat,
)
from vmkernel.qemu import QmpCommandError, RunState
from vmkernel.vm.store import snapshot_records as records
from vmkernel.vm.store.snapshot_records import SnapshotRecord

from .test_driver import running, state
from .world import World

MEMORY = SnapshotSpec(memory=True)
PLAIN = SnapshotSpec()


@asynccontextmanager
async def guest(root: Path, *, on: bool = True) -> AsyncIterator[World]:
    """A VM with a qcow2 disk."""
    async with running(root) as world:
        await world.act(VmAction.POWER_OFF)
        volume = world.storage.add_volume("disk")
        world.storage.volumes["disk"] = replace(volume, format=VolumeFormat.QCOW2)
        volume.path.write_bytes(b"first")
        vm = world.vms.inventory.get("web")
        spec = replace(vm.spec, disks=(DiskSpec(volume="disk"),))
        await world.vms.changes.update("web", spec, vm.revision, actor="test")
        if on:
            await start(world)
        yield world


async def start(world: World) -> None:
    operation = await world.act(VmAction.START)
    assert operation.state is OperationState.SUCCEEDED, operation.error
    connect(world)


def connect(world: World) -> None:
    """Let the present QEMU keep its disk where qemu-img does."""
    path, image = world.storage.volumes["disk"].path, world.storage.qemu_img

    def take(arguments: Mapping[str, Any]) -> None:
        assert world.qemu().status is not RunState.RUNNING
        for action in arguments["actions"]:
            assert action["data"]["device"] == "disk0"
            image.kept.setdefault(path, {})[action["data"]["name"]] = path.read_bytes()

    def forget(arguments: Mapping[str, Any]) -> Any:
        if arguments["name"] not in image.kept.get(path, {}):
            return QmpCommandError("Snapshot with that name does not exist on device")
        del image.kept[path][arguments["name"]]
        return {}

    world.qemu().replies |= {
        "transaction": take,
        "blockdev-snapshot-delete-internal-sync": forget,
    }


async def done(world: World, operation: Operation) -> Operation:
    ended = await world.operations.wait(operation.id, 10)
    assert ended.state is OperationState.SUCCEEDED, ended.error
    return ended


async def take(world: World, name: str, spec: SnapshotSpec = PLAIN) -> None:
    await done(world, await world.vms.snapshots().create("web", name, spec, actor="test"))


async def revert(world: World, name: str, start: bool | None = None) -> None:
    service = world.vms.snapshots()
    await done(world, await service.revert("web", name, start=start, actor="test"))


async def delete(world: World, name: str) -> None:
    await done(world, await world.vms.snapshots().delete("web", name, actor="test"))


async def tree(world: World) -> dict[str, SnapshotStatus]:
    return {s.id: s.status for s in await world.vms.snapshots().list("web")}


async def until_memory_is_written(world: World) -> None:
    for _ in range(1000):
        if world.qemu().migration.get("status") == "active":
            return
        await asyncio.sleep(0.005)
    raise AssertionError("no memory is written")


def folder(world: World) -> Path:
    return world.storage.vms_folder("main") / "web"


def disk(world: World) -> Path:
    return world.storage.volumes["disk"].path


def nothing_is_left(world: World, *names: str) -> None:
    """No trace of any snapshot but these."""
    kept, _ = records.load_all(folder(world))
    assert set(kept) == set(names)
    tags = {record.tag for record in kept.values()}
    assert set(world.storage.qemu_img.kept.get(disk(world), {})) == tags
    if (folder(world) / "snapshots").exists():
        assert {p.name for p in (folder(world) / "snapshots").iterdir()} == set(names)
    assert not (folder(world) / "revert.json").exists()


@on_loop
async def test_the_memory_and_the_disk_of_then_come_back(tmp_path: Path) -> None:
    async with guest(tmp_path) as world:
        world.qemu().memory = b"counted to 7"
        (folder(world) / "nvram.fd").write_bytes(b"variables of then")
        await take(world, "then", MEMORY)
        await world.quiet()
        assert state(world) is VmState.RUNNING
        assert world.qemu().status is RunState.RUNNING
        world.qemu().memory = b"counted to 99"
        disk(world).write_bytes(b"later")
        (folder(world) / "nvram.fd").write_bytes(b"variables of now")
        for _ in range(2):  # the snapshot stays
            await revert(world, "then")
            assert state(world) is VmState.RUNNING
            assert world.qemu().memory == b"counted to 7"
            assert disk(world).read_bytes() == b"first"
            assert (folder(world) / "nvram.fd").read_bytes() == b"variables of then"
        status = (await tree(world))["then"]
        assert (status.state, status.current) == (SnapshotState.READY, True)
        assert status.memory_bytes > 0
        assert len(world.events("snapshot.reverted")) == 2


@on_loop
async def test_without_memory_the_vm_runs_as_it_ran_before(tmp_path: Path) -> None:
    async with guest(tmp_path) as world:
        with pytest.raises(AssertionError, match="No agent is running"):
            await take(world, "one", SnapshotSpec(quiesce=True))
        assert await tree(world) == {}
        await take(world, "one", SnapshotSpec(quiesce=True, best_effort=True))
        assert (await tree(world))["one"].reason == "No agent is running in the guest."
        disk(world).write_bytes(b"later")
        await revert(world, "one")
        assert state(world) is VmState.RUNNING
        assert disk(world).read_bytes() == b"first"
        await world.act(VmAction.POWER_OFF)
        await revert(world, "one")
        assert state(world) is VmState.STOPPED
        await revert(world, "one", start=True)
        assert state(world) is VmState.RUNNING


@on_loop
async def test_a_tree_grows_and_is_pruned(tmp_path: Path) -> None:
    async with guest(tmp_path, on=False) as world:
        for name in ("a", "b", "c"):
            disk(world).write_bytes(name.encode())
            await take(world, name)
        await revert(world, "a")
        await take(world, "d")
        parents = {name: status.parent for name, status in (await tree(world)).items()}
        assert parents == {"a": None, "b": "a", "c": "b", "d": "a"}
        await delete(world, "b")
        await delete(world, "d")
        parents = {name: status.parent for name, status in (await tree(world)).items()}
        assert parents == {"a": None, "c": "a"}
        assert (await tree(world))["a"].current
        await delete(world, "a")
        found = await tree(world)
        assert found["c"].parent is None
        assert not found["c"].current
        await revert(world, "c")
        assert disk(world).read_bytes() == b"c"
        await world.restart()
        assert (await tree(world))["c"].current
        nothing_is_left(world, "c")


@on_loop
async def test_the_spec_of_then_comes_back(tmp_path: Path) -> None:
    async with guest(tmp_path, on=False) as world:
        await take(world, "one")
        vm = world.vms.inventory.get("web")
        spec = replace(vm.spec, disks=(), memory_bytes=64 << 20, name="new name")
        await world.vms.changes.update("web", spec, vm.revision, actor="test")
        assert world.vms.usage.snapshots_of("disk") == ("web/one",)
        await revert(world, "one")
        after = world.vms.inventory.get("web").spec
        assert [d.volume for d in after.disks] == ["disk"]
        assert (after.memory_bytes, after.name) == (vm.spec.memory_bytes, "new name")


@on_loop
async def test_what_is_refused(tmp_path: Path) -> None:
    async with guest(tmp_path, on=False) as world:
        service = world.vms.snapshots()
        with pytest.raises(MicaError, match="no memory") as caught:
            await service.create("web", "one", MEMORY, actor="test")
        assert caught.value.problem.fields[0].pointer == "/spec/memory"
        await take(world, "one")
        with pytest.raises(MicaError, match="already"):
            await service.create("web", "one", SnapshotSpec(), actor="test")
        for call in (
            service.get("web", "none"),
            service.revert("web", "none", start=None, actor="test"),
            service.delete("web", "none", actor="test"),
        ):
            with pytest.raises(MicaError) as caught:
                await call
            assert caught.value.problem.code is ErrorCode.NOT_FOUND
        with pytest.raises(MicaError, match="has snapshots"):
            await world.vms.changes.delete("web", actor="test")
        # A disk that lost what was kept: nothing is changed.
        tags, world.storage.qemu_img.kept[disk(world)] = (
            world.storage.qemu_img.kept[disk(world)],
            {},
        )
        operation = await service.revert("web", "one", start=None, actor="test")
        ended = await world.operations.wait(operation.id, 10)
        assert ended.error is not None
        assert "no longer holds" in ended.error.detail
        assert state(world) is VmState.STOPPED
        world.storage.qemu_img.kept[disk(world)] = tags
        # Another VM has taken the disk.
        vm = world.vms.inventory.get("web")
        spec = replace(vm.spec, disks=())
        await world.vms.changes.update("web", spec, vm.revision, actor="test")
        await world.create("other", disks=(DiskSpec(volume="disk"),))
        with pytest.raises(MicaError, match="belongs to VM other"):
            await service.revert("web", "one", start=None, actor="test")


@on_loop
async def test_raw_disks_without_shared_blocks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmkernel.vm.snapshots.disks.reflink", lambda *_: False)
    async with guest(tmp_path) as world:
        volume = world.storage.volumes["disk"]
        world.storage.volumes["disk"] = replace(volume, format=VolumeFormat.RAW)
        operation = await world.vms.snapshots().create("web", "one", SnapshotSpec(), actor="test")
        ended = await world.operations.wait(operation.id, 10)
        assert ended.error is not None
        assert (ended.error.code, ended.error.errors[0].pointer) == (
            ErrorCode.UNSUPPORTED,
            "/spec/disks/0/volume",
        )
        assert world.qemu().status is RunState.RUNNING
        nothing_is_left(world)


def _copy(source: Path, target: Path) -> bool:
    target.write_bytes(source.read_bytes())
    return True


@on_loop
async def test_raw_disks_share_their_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmkernel.vm.snapshots.disks.reflink", _copy)
    async with guest(tmp_path) as world:
        volume = world.storage.volumes["disk"]
        world.storage.volumes["disk"] = replace(volume, format=VolumeFormat.RAW)
        await take(world, "one", MEMORY)
        disk(world).write_bytes(b"later")
        await revert(world, "one")
        assert disk(world).read_bytes() == b"first"
        await delete(world, "one")
        nothing_is_left(world)


@on_loop
async def test_a_failure_leaves_nothing_and_the_guest_running(tmp_path: Path) -> None:
    async with guest(tmp_path) as world:
        service = world.vms.snapshots()
        world.qemu().replies["migrate"] = QmpCommandError("a device can't be saved")
        operation = await service.create("web", "one", MEMORY, actor="test")
        ended = await world.operations.wait(operation.id, 10)
        assert ended.error is not None
        assert "a device can't be saved" in ended.error.detail
        await world.quiet()
        assert world.qemu().status is RunState.RUNNING
        assert state(world) is VmState.RUNNING
        nothing_is_left(world)


@on_loop
async def test_giving_up_leaves_nothing_and_the_guest_running(tmp_path: Path) -> None:
    async with guest(tmp_path) as world:
        world.qemu().slow = True
        operation = await world.vms.snapshots().create("web", "one", MEMORY, actor="test")
        await until_memory_is_written(world)
        ended = await world.operations.cancel(operation.id, "test")
        assert ended.state is OperationState.CANCELLED
        await world.quiet()
        assert world.qemu().status is RunState.RUNNING
        nothing_is_left(world)


@on_loop
async def test_power_off_need_not_wait_for_a_snapshot(tmp_path: Path) -> None:
    async with guest(tmp_path) as world:
        world.qemu().slow = True
        operation = await world.vms.snapshots().create("web", "one", MEMORY, actor="test")
        await until_memory_is_written(world)
        off = await world.act(VmAction.POWER_OFF)
        assert off.state is OperationState.SUCCEEDED, off.error
        ended = await world.operations.wait(operation.id, 10)
        assert ended.state is OperationState.FAILED
        assert state(world) is VmState.STOPPED
        nothing_is_left(world)


@on_loop
async def test_a_crash_while_one_is_taken_is_swept(tmp_path: Path) -> None:
    async with guest(tmp_path) as world:
        await take(world, "one", MEMORY)
        record = records.load_all(folder(world))[0]["one"]
        half = replace(
            record, id="two", tag=f"mica-{'0' * 16}", parent="one", state=SnapshotState.CREATING
        )
        records.save(folder(world), half)
        world.storage.qemu_img.kept[disk(world)][half.tag] = b"half"
        (folder(world) / "snapshots/two/suspend.state.new").write_bytes(b"half")
        await world.restart()
        await world.vms.inventory.driver("web").ready()
        nothing_is_left(world, "one")
        assert state(world) is VmState.RUNNING


@on_loop
async def test_a_crash_while_going_back_is_finished(tmp_path: Path) -> None:
    """Whether QEMU had been ended already or not."""
    for name, on in (("on", True), ("off", False)):
        root = tmp_path / name
        root.mkdir()
        async with guest(root) as world:
            world.qemu().memory = b"counted to 7"
            await take(world, "then", MEMORY)
            disk(world).write_bytes(b"later")
            if not on:
                await world.act(VmAction.POWER_OFF)
            records.begin_revert(folder(world), records.Revert(snapshot="then"))
            await world.restart()
            await world.vms.inventory.driver("web").ready()
            assert state(world) is VmState.SUSPENDED
            assert disk(world).read_bytes() == b"first"
            nothing_is_left(world, "then")
            await start(world)
            assert world.qemu().memory == b"counted to 7"


@on_loop
async def test_a_revert_that_fails_is_finished_later(tmp_path: Path) -> None:
    async with guest(tmp_path) as world:
        await take(world, "one")
        disk(world).write_bytes(b"later")
        world.storage.qemu_img.fails_at = "-a"
        operation = await world.vms.snapshots().revert("web", "one", start=None, actor="test")
        ended = await world.operations.wait(operation.id, 10)
        assert ended.state is OperationState.FAILED
        assert state(world) is VmState.UNUSABLE
        await world.restart()
        await world.vms.inventory.driver("web").ready()
        assert state(world) is VmState.STOPPED
        assert disk(world).read_bytes() == b"first"


@on_loop
async def test_a_revert_whose_qemu_cannot_be_ended_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guest(tmp_path) as world:
        await take(world, "one")
        disk(world).write_bytes(b"later")
        world.qemu().hangs = True
        monkeypatch.setattr(world.launcher, "kill", lambda _: None)
        operation = await world.vms.snapshots().revert("web", "one", start=None, actor="test")
        ended = await world.operations.wait(operation.id, 10)
        assert ended.error is not None
        assert "can't be stopped" in ended.error.detail
        assert disk(world).read_bytes() == b"later"
        nothing_is_left(world, "one")
        monkeypatch.undo()
        assert (await world.act(VmAction.POWER_OFF)).state is OperationState.SUCCEEDED


@on_loop
async def test_no_start_beside_a_revert_that_was_cut_off(tmp_path: Path) -> None:
    """It would be finished at the next start of the vmkernel, under a guest that ran meanwhile."""
    async with guest(tmp_path, on=False) as world:
        await take(world, "one")
        disk(world).write_bytes(b"later")
        records.begin_revert(folder(world), records.Revert(snapshot="one"))
        await start(world)
        assert disk(world).read_bytes() == b"first"
        nothing_is_left(world, "one")


@on_loop
async def test_checkpoints_of_backups_go_with_what_they_recorded(tmp_path: Path) -> None:
    async with guest(tmp_path, on=False) as world:
        await take(world, "one")
        disk(world).write_bytes(b"later")
        world.storage.qemu_img.marks[disk(world)] = {"checkpoint-monday", "checkpoint-sunday"}
        await revert(world, "one")
        assert disk(world).read_bytes() == b"first"
        assert not world.storage.qemu_img.marks[disk(world)]


@on_loop
async def test_a_paused_guest_keeps_its_disks_after_its_memory_was_written(tmp_path: Path) -> None:
    async with guest(tmp_path) as world:
        await world.act(VmAction.PAUSE)
        await take(world, "one", MEMORY)
        assert ("blockdev-set-active", {"active": True}) in world.qemu().commands
        operation = await world.vms.snapshots().create("web", "two", MEMORY, actor="test")
        ended = await world.operations.wait(operation.id, 10)
        assert ended.error is not None
        assert "resume it briefly" in ended.error.detail
        assert state(world) is VmState.PAUSED
        nothing_is_left(world, "one")


@on_loop
async def test_a_deletion_that_fails_can_be_repeated(tmp_path: Path) -> None:
    async with guest(tmp_path, on=False) as world:
        await take(world, "one")
        await take(world, "two")
        world.storage.qemu_img.fails_at, world.storage.qemu_img.fails = "-d", 2
        operation = await world.vms.snapshots().delete("web", "one", actor="test")
        assert (await world.operations.wait(operation.id, 10)).state is OperationState.FAILED
        assert (await tree(world))["one"].state is SnapshotState.DELETING
        with pytest.raises(MicaError, match="is deleting"):
            await world.vms.snapshots().revert("web", "one", start=None, actor="test")
        await world.restart()
        assert set(await tree(world)) == {"two"}
        assert (await tree(world))["two"].parent is None
        nothing_is_left(world, "two")


@on_loop
async def test_a_deletion_that_finds_no_room_gets_what_was_set_aside(tmp_path: Path) -> None:
    async with guest(tmp_path, on=False) as world:
        await take(world, "one")
        world.storage.qemu_img.fails_at = "-d"  # the first time only
        operation = await world.vms.snapshots().delete("web", "one", actor="test")
        assert (await world.operations.wait(operation.id, 10)).state is OperationState.SUCCEEDED
        assert world.storage.reserves == ("main",)
        assert await tree(world) == {}
        nothing_is_left(world)


@on_loop
async def test_what_is_left_of_a_broken_snapshot_is_found_and_goes(tmp_path: Path) -> None:
    async with guest(tmp_path) as world:
        await take(world, "one", SnapshotSpec(memory=True))
        left = folder(world) / "snapshots/one"
        assert (left / "suspend.state").exists()
        (left / "snapshot.json").write_bytes(b"{")
        await world.restart()
        assert await tree(world) == {}
        (found,) = [f for f in world.vms.findings() if f.code == "snapshot-unusable"]
        assert "one" in found.message
        assert found.subject == "web"
        assert world.vms.usage.snapshot_tags("disk") is None, (
            "nobody may take its part in the disk away"
        )
        operation = await world.vms.snapshots().delete("web", "one", actor="test")
        assert (await world.operations.wait(operation.id, 10)).state is OperationState.SUCCEEDED
        assert not left.exists()
        assert [f for f in world.vms.findings() if f.code == "snapshot-unusable"] == []
        assert world.vms.usage.snapshot_tags("disk") == frozenset()


@on_loop
async def test_a_vm_goes_with_what_it_kept_in_volumes_it_has_no_more(tmp_path: Path) -> None:
    async with guest(tmp_path, on=False) as world:
        await take(world, "one")
        kept = world.storage.volumes["disk"].path
        assert world.storage.qemu_img.kept[kept]
        vm = world.vms.inventory.get("web")
        await world.vms.changes.update("web", replace(vm.spec, disks=()), vm.revision, actor="test")
        await world.vms.changes.delete("web", with_volumes=True, actor="test")
        assert world.storage.qemu_img.kept[kept] == {}
        assert world.storage.deleted == []


def test_a_broken_record_hides_no_other(tmp_path: Path) -> None:
    record = SnapshotRecord(
        id="good",
        tag=f"mica-{'a' * 16}",
        created_at="2026-01-01T00:00:00Z",
        state=SnapshotState.READY,
        memory=False,
        quiesce=False,
        machine_type="pc-q35-10.0",
        spec=_spec(),
        disks=(),
    )
    records.save(tmp_path, record)
    records.save(tmp_path, replace(record, id="bad"))
    (tmp_path / "snapshots/bad/snapshot.json").write_bytes(b"{")
    (tmp_path / "snapshots/stray").write_bytes(b"")
    (tmp_path / "snapshots/left").mkdir()
    (tmp_path / "snapshots/left/suspend.state").write_bytes(b"memory")
    records.save(tmp_path, replace(record, id="renamed"))
    (tmp_path / "snapshots/renamed").rename(tmp_path / "snapshots/other")
    found, broken = records.load_all(tmp_path)
    assert set(found) == {"good"}
    assert set(broken) == {"bad", "other"}
    assert not (tmp_path / "snapshots/left").exists()
    records.remove(tmp_path, "good")
    records.remove(tmp_path, "good")


def _spec() -> Any:
    from vmkernel.model import VmSpec

    return VmSpec(datastore="main")
