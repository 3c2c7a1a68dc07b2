"""Pausing, and suspending to disk with everything that may go wrong on the way."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.framework.running import on_loop
from vmkernel.model import ErrorCode, MicaError, OperationState, VmAction, VmState
from vmkernel.qemu import RunState
from vmkernel.vm.store import definition as definitions
from vmkernel.vm.store import saved_memory
from vmkernel.vm.store.launch_record import read_record, write_record

from .test_driver import running, state
from .world import World


def _folder(world: World) -> Path:
    return world.storage.vms_folder("main") / "web"


async def _succeeds(world: World, action: VmAction) -> None:
    operation = await world.act(action)
    assert operation.state is OperationState.SUCCEEDED, operation.error


async def _suspended(world: World) -> None:
    world.qemu().memory = b"counted to 7"
    await _succeeds(world, VmAction.SUSPEND)


@on_loop
async def test_pause_and_resume(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _succeeds(world, VmAction.PAUSE)
        assert state(world) is VmState.PAUSED
        assert world.qemu().status is RunState.PAUSED
        with pytest.raises(MicaError):
            await world.vms.power.act("web", VmAction.SHUTDOWN, timeout_s=1, actor="test")
        await _succeeds(world, VmAction.RESUME)
        await world.quiet()
        assert state(world) is VmState.RUNNING
        assert world.qemu().status is RunState.RUNNING


@on_loop
async def test_what_cannot_go_on_must_be_reset(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.host.folder("web").log.write_text("KVM: emulation failure\n")
        world.qemu().pause(RunState.INTERNAL_ERROR)
        await world.quiet()
        assert state(world) is VmState.PAUSED
        assert "emulation failure" in (world.vms.inventory.get("web").status.reason or "")
        assert len(world.events("vm.internal-error")) == 1
        refused = await world.act(VmAction.RESUME)
        assert refused.error is not None
        assert refused.error.code is ErrorCode.CONFLICT
        await _succeeds(world, VmAction.RESET)
        assert state(world) is VmState.RUNNING


@on_loop
async def test_suspend_and_resume(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _suspended(world)
        vm = world.vms.inventory.get("web")
        assert vm.status.state is VmState.SUSPENDED
        assert vm.status.memory_image is not None
        assert vm.status.memory_image.size_bytes == len(b"IMAGE counted to 7")
        assert world.launcher.qemus == {}
        assert world.host.admission.promised_bytes == 0
        with pytest.raises(MicaError):  # the hardware stays as the memory knows it
            await world.vms.power.act("web", VmAction.SHUTDOWN, timeout_s=1, actor="test")
        await world.restart()
        assert state(world) is VmState.SUSPENDED
        await _succeeds(world, VmAction.RESUME)
        assert state(world) is VmState.RUNNING
        assert world.qemu().memory == b"counted to 7"
        assert world.qemu().status is RunState.RUNNING
        assert not list(_folder(world).glob("suspend*"))
        assert world.vms.inventory.get("web").status.memory_image is None
        await _succeeds(world, VmAction.POWER_OFF)
        await _succeeds(world, VmAction.START)
        assert world.qemu().memory == b"fresh"


@on_loop
async def test_a_suspended_vm_keeps_its_volumes_as_they_are(tmp_path: Path) -> None:
    from vmkernel.model import DiskSpec

    world = World(tmp_path)
    world.storage.add_volume("disk")
    await world.vms.start()
    await world.create(disks=(DiskSpec(volume="disk"),))
    await _succeeds(world, VmAction.START)
    await _suspended(world)
    assert world.vms.usage.volume_is_open("disk")
    with pytest.raises(MicaError):
        world.vms.inventory.hold("web", "a revert", frozenset())
    with pytest.raises(MicaError, match="web is suspended"):
        await world.vms.live_disks().resize("disk", 2 << 20)
    await _succeeds(world, VmAction.DISCARD_STATE)
    assert state(world) is VmState.STOPPED
    assert not world.vms.usage.volume_is_open("disk")
    assert not list(_folder(world).glob("suspend*"))
    await world.vms.stop()


@on_loop
async def test_no_room_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path) as world:
        monkeypatch.setattr(saved_memory, "free_bytes", lambda _: (1 << 30, 1 << 20))
        operation = await world.act(VmAction.SUSPEND)
        assert operation.error is not None
        assert operation.error.code is ErrorCode.INSUFFICIENT_SPACE
        assert state(world) is VmState.RUNNING
        assert world.qemu().status is RunState.RUNNING


@on_loop
async def test_a_datastore_that_fills_up_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as world:
        reply = {"status": "failed", "error-desc": "write: No space left on device"}
        world.qemu().replies["query-migrate"] = reply
        operation = await world.act(VmAction.SUSPEND)
        assert operation.error is not None
        assert operation.error.code is ErrorCode.INSUFFICIENT_SPACE
        assert "keeps running: no space is left on datastore main; " in operation.error.detail

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(definitions, "save", full)
        with pytest.raises(MicaError, match="no space is left on datastore main; delete"):
            await world.create("other")
        known = world.vms.inventory.get("web")
        with pytest.raises(MicaError, match="o space is left on datastore main; delete"):
            await world.vms.changes.update(
                "web", replace(known.spec, name="new"), known.revision, actor="me"
            )


@on_loop
async def test_a_failed_suspension_leaves_the_guest_running(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.qemu().replies["query-migrate"] = {
            "status": "failed",
            "error-desc": "State blocked by non-migratable device 'nvme'",
        }
        operation = await world.act(VmAction.SUSPEND)
        assert operation.error is not None
        assert operation.error.code is ErrorCode.UNSUPPORTED
        assert "nvme" in operation.error.detail
        await world.quiet()
        assert state(world) is VmState.RUNNING
        assert world.qemu().status is RunState.RUNNING
        assert not list(_folder(world).glob("suspend*"))


@on_loop
async def test_giving_up(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.qemu().slow = True
        operation = await world.vms.power.act("web", VmAction.SUSPEND, timeout_s=1, actor="test")
        await world.quiet()
        assert state(world) is VmState.SUSPENDING
        assert (await world.operations.cancel(operation.id, "test")).state is (
            OperationState.CANCELLED
        )
        await world.quiet()
        assert state(world) is VmState.RUNNING
        assert world.qemu().status is RunState.RUNNING


@on_loop
async def test_a_power_off_waits_for_no_memory(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.qemu().slow = True
        first = await world.vms.power.act("web", VmAction.SUSPEND, timeout_s=1, actor="test")
        await world.quiet()
        await _succeeds(world, VmAction.POWER_OFF)
        assert state(world) is VmState.STOPPED
        assert (await world.operations.wait(first.id, 5)).state is OperationState.FAILED


@on_loop
async def test_a_damaged_image(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _suspended(world)
        image = _folder(world) / "suspend.state"
        image.write_bytes(image.read_bytes()[:-1] + b"8")
        operation = await world.act(VmAction.RESUME)
        assert operation.error is not None
        assert operation.error.code is ErrorCode.DIGEST_MISMATCH
        assert "discard-state" in operation.error.detail
        assert state(world) is VmState.SUSPENDED
        assert "damaged" in (world.vms.inventory.get("web").status.reason or "")
        (_folder(world) / "suspend.json").write_text("{")
        await world.restart()
        assert state(world) is VmState.SUSPENDED
        await _succeeds(world, VmAction.DISCARD_STATE)
        await _succeeds(world, VmAction.START)
        assert world.qemu().memory == b"fresh"


@on_loop
async def test_an_image_that_qemu_refuses_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _suspended(world)
        path = _folder(world) / "suspend.json"
        image = _folder(world) / "suspend.state"
        data = b"NO IMAGE OF THIS QEMU".ljust(image.stat().st_size)[: image.stat().st_size]
        image.write_bytes(data)
        import zlib

        known = saved_memory.find(_folder(world))
        assert known is not None
        assert known.image is not None
        path.write_text(path.read_text().replace(str(known.image.crc32), str(zlib.crc32(data))))
        await world.restart()
        operation = await world.act(VmAction.RESUME)
        assert operation.error is not None
        assert operation.error.code is ErrorCode.UNSUPPORTED
        assert "not a state" in operation.error.detail
        assert state(world) is VmState.SUSPENDED
        assert world.launcher.qemus == {}


@on_loop
async def test_another_accelerator_cannot_load_it(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await _suspended(world)
        path = _folder(world) / "suspend.json"
        path.write_text(path.read_text().replace('"kvm"', '"tcg"'))
        await world.restart()
        operation = await world.act(VmAction.RESUME)
        assert operation.error is not None
        assert operation.error.code is ErrorCode.UNSUPPORTED


@on_loop
async def test_a_vmkernel_that_ends_while_memory_is_written(tmp_path: Path) -> None:
    """However far it had come: the guest goes on, or is suspended, never both."""
    async with running(tmp_path) as world:
        world.qemu().slow = True
        await world.vms.power.act("web", VmAction.SUSPEND, timeout_s=1, actor="test")
        await world.quiet()
        await world.restart()
        await world.quiet()
        assert state(world) is VmState.RUNNING
        assert world.qemu().status is RunState.RUNNING


@on_loop
async def test_a_vmkernel_that_was_killed_while_memory_was_written(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        from msgspec.structs import replace

        path = world.host.folder("web").record
        record = read_record(path)
        assert record is not None
        await world.operations.close()
        await world.vms.stop()
        write_record(path, replace(record, suspending_from=VmState.RUNNING))
        (_folder(world) / "suspend.state.new").write_bytes(b"half")
        world.qemu().status = RunState.POST_MIGRATE
        world.new_vmkernel()
        await world.vms.start()
        assert state(world) is VmState.RUNNING
        assert world.qemu().status is RunState.RUNNING
        assert not list(_folder(world).glob("suspend*"))


@on_loop
async def test_a_sealed_image_is_the_truth(tmp_path: Path) -> None:
    """The vmkernel ended between the seal and QEMU's end."""
    async with running(tmp_path) as world:
        await _suspended(world)
        saved = {p.name: p.read_bytes() for p in _folder(world).glob("suspend*")}
        await _succeeds(world, VmAction.DISCARD_STATE)
        await _succeeds(world, VmAction.START)
        await world.operations.close()
        await world.vms.stop()
        for name, data in saved.items():
            (_folder(world) / name).write_bytes(data)
        world.qemu().status = RunState.POST_MIGRATE
        world.new_vmkernel()
        await world.vms.start()
        assert state(world) is VmState.SUSPENDED
        assert world.launcher.qemus == {}
        await _succeeds(world, VmAction.START)
        assert world.qemu().memory == b"counted to 7"


@on_loop
async def test_a_stop_waits_for_the_seal_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()
    seal = saved_memory.seal

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert gate.wait(10)
        return seal(*arguments)

    monkeypatch.setattr(saved_memory, "seal", slow)
    async with running(tmp_path) as world:
        await world.vms.power.act("web", VmAction.SUSPEND, timeout_s=1, actor="test")
        await asyncio.to_thread(begun.wait, 10)
        stopping = asyncio.create_task(world.vms.stop())
        await world.quiet(held=1)
        assert not stopping.done()
        gate.set()
        async with asyncio.timeout(10):
            await stopping
        assert (_folder(world) / "suspend.json").exists()
        await world.operations.close()
        world.new_vmkernel()
        await world.vms.start()
        assert state(world) is VmState.SUSPENDED


@on_loop
async def test_qemu_dies_while_memory_is_written(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.qemu().slow = True
        operation = await world.vms.power.act("web", VmAction.SUSPEND, timeout_s=1, actor="test")
        await world.quiet()
        world.qemu().die()
        ended = await world.operations.wait(operation.id, 5)
        assert ended.state is OperationState.FAILED
        for _ in range(50):
            await asyncio.sleep(0.01)
            if state(world) is VmState.CRASHED:
                break
        assert state(world) is VmState.CRASHED
        assert not list(_folder(world).glob("suspend*"))
