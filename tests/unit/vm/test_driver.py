"""A VM's states, driven by requests and by its QEMU."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.vm.world import World
from vmkernel.model import (
    ConsoleKind,
    DiskSpec,
    DisplayModel,
    ErrorCode,
    Firmware,
    MicaError,
    OperationState,
    VmAction,
    VmState,
)
from vmkernel.qemu import DiskError, GuestPanicked, GuestReset, RunState
from vmkernel.vm.lifecycle.host_shutdown import end_guests
from vmkernel.vm.machine.event_rate_limit import EventRateLimit
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.states import VmRequest


@asynccontextmanager
async def running(root: Path, **fields: Any) -> AsyncIterator[World]:
    """A world with one VM that runs."""
    world = World(root)
    await world.vms.start()
    try:
        await world.create(**fields)
        operation = await world.act(VmAction.START)
        assert operation.state is OperationState.SUCCEEDED, operation.error
        yield world
    finally:
        await world.operations.close()
        await world.vms.stop()


def state(world: World) -> VmState:
    return world.vms.inventory.get("web").status.state


def test_start_and_power_off(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            vm = world.vms.inventory.get("web")
            assert vm.status.state is VmState.RUNNING
            assert vm.status.accelerator == "kvm"
            assert vm.status.started_at is not None
            assert world.qemu().status is RunState.RUNNING
            assert [e.data["state"] for e in world.events("vm.state")] == ["starting", "running"]
            assert world.host.admission.promised_bytes > 0
            assert (await world.act(VmAction.POWER_OFF)).state is OperationState.SUCCEEDED
            vm = world.vms.inventory.get("web")
            assert vm.status.state is VmState.STOPPED
            assert vm.status.reason is None
            assert vm.status.accelerator is None
            assert world.launcher.qemus == {}
            assert world.host.admission.promised_bytes == 0

    asyncio.run(story())


def test_shutdown_that_is_obeyed(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            assert (await world.act(VmAction.SHUTDOWN)).state is OperationState.SUCCEEDED
            assert state(world) is VmState.STOPPED

    asyncio.run(story())


def test_shutdown_that_is_ignored_forces_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().obeys = False
            operation = await world.act(VmAction.SHUTDOWN, timeout_s=0.02)
            assert operation.state is OperationState.FAILED
            assert operation.error is not None
            assert operation.error.code is ErrorCode.TIMED_OUT
            assert state(world) is VmState.RUNNING
            assert world.qemu().alive

    asyncio.run(story())


def test_a_guest_that_boots_is_asked_to_shut_down_until_it_does(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            qemu = world.qemu()
            qemu.boots = 3
            assert (await world.act(VmAction.SHUTDOWN)).state is OperationState.SUCCEEDED
            assert state(world) is VmState.STOPPED
            assert qemu.presses == 4

    asyncio.run(story())


def test_the_power_button_is_left_alone_once_no_shutdown_is_awaited(tmp_path: Path) -> None:
    """After its time-out, a cancel, a reset; and in a shutdown that is asked for twice, the button
    is pressed no oftener."""

    async def story() -> None:
        async with running(tmp_path) as world:
            qemu = world.qemu()
            qemu.obeys = False
            assert (await world.act(VmAction.SHUTDOWN, timeout_s=0.05)).error is not None
            pressed = qemu.presses
            assert 2 <= pressed <= 4
            await asyncio.sleep(0.1)
            assert qemu.presses == pressed
            operation = await world.vms.power.act(
                "web", VmAction.SHUTDOWN, timeout_s=60, actor="test"
            )
            await world.quiet()
            await world.operations.cancel(operation.id, "test")
            await world.quiet()
            pressed = qemu.presses
            await asyncio.sleep(0.1)
            assert qemu.presses == pressed
            for _ in range(2):
                await world.vms.power.act("web", VmAction.SHUTDOWN, timeout_s=60, actor="test")
            await world.quiet()
            pressed = qemu.presses
            await asyncio.sleep(0.11)
            assert qemu.presses - pressed <= 6
            assert (await world.act(VmAction.RESET)).state is OperationState.SUCCEEDED
            pressed = qemu.presses
            await asyncio.sleep(0.1)
            assert qemu.presses == pressed
            assert qemu.alive

    asyncio.run(story())


def test_power_off_during_a_shutdown_ends_both(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().obeys = False
            first = await world.vms.power.act("web", VmAction.SHUTDOWN, timeout_s=60, actor="test")
            await world.quiet()
            assert state(world) is VmState.STOPPING
            assert (await world.act(VmAction.POWER_OFF)).state is OperationState.SUCCEEDED
            ended = await world.operations.wait(first.id, 5)
            assert ended.state is OperationState.SUCCEEDED

    asyncio.run(story())


def test_a_cancelled_shutdown_leaves_a_running_vm(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().obeys = False
            operation = await world.vms.power.act(
                "web", VmAction.SHUTDOWN, timeout_s=60, actor="test"
            )
            await world.quiet()
            ended = await world.operations.cancel(operation.id, "test")
            assert ended.state is OperationState.CANCELLED
            await world.quiet()
            assert state(world) is VmState.RUNNING

    asyncio.run(story())


def test_reset_during_a_shutdown(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().obeys = False
            first = await world.vms.power.act("web", VmAction.SHUTDOWN, timeout_s=60, actor="test")
            await world.quiet()
            assert (await world.act(VmAction.RESET)).state is OperationState.SUCCEEDED
            ended = await world.operations.wait(first.id, 5)
            assert ended.error is not None
            assert ended.error.code is ErrorCode.CONFLICT
            assert state(world) is VmState.RUNNING
            assert world.qemu().resets == 1

    asyncio.run(story())


def test_a_killed_qemu_is_a_crash_with_its_last_words(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.host.folder("web").log.write_text("one\nlast words\n")
            world.qemu().die()
            await world.quiet()
            vm = world.vms.inventory.get("web")
            assert vm.status.state is VmState.CRASHED
            assert vm.status.reason is not None
            assert "signal 9" in vm.status.reason
            assert "last words" in vm.status.reason
            assert (await world.act(VmAction.START)).state is OperationState.SUCCEEDED
            assert world.vms.inventory.get("web").status.reason is None

    asyncio.run(story())


def test_the_guest_switches_off(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().end(by_guest=True, cause="guest-shutdown")
            await world.quiet()
            assert state(world) is VmState.STOPPED
            assert world.vms.inventory.get("web").status.reason is None

    asyncio.run(story())


def test_ended_from_outside(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().end(by_guest=False, cause="host-signal")
            await world.quiet()
            vm = world.vms.inventory.get("web")
            assert vm.status.state is VmState.STOPPED
            assert "host-signal" in (vm.status.reason or "")

    asyncio.run(story())


def test_a_full_datastore_pauses(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().say(DiskError("disk0", no_space=True, detail="No space left"))
            world.qemu().pause()
            await world.quiet()
            vm = world.vms.inventory.get("web")
            assert vm.status.state is VmState.PAUSED
            assert "no space" in (vm.status.reason or "")
            world.qemu().resume()
            await world.quiet()
            assert world.vms.inventory.get("web").status.reason is None
            assert state(world) is VmState.RUNNING

    asyncio.run(story())


def test_panic_and_reset_are_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().say(GuestPanicked("pvpanic"))
            await world.quiet()
            assert state(world) is VmState.RUNNING
            assert "panic" in (world.vms.inventory.get("web").status.reason or "")
            assert len(world.events("vm.guest-panicked")) == 1
            world.qemu().say(GuestReset(by_guest=True))
            await world.quiet()
            assert world.vms.inventory.get("web").status.reason is None
            assert len(world.events("vm.reset")) == 1

    asyncio.run(story())


def test_a_lost_session_is_taken_up_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            qemu = world.qemu()
            qemu.answers = False
            qemu.drop_sessions()
            await world.until(
                lambda: "does not answer" in (world.vms.inventory.get("web").status.reason or "")
            )
            assert state(world) is VmState.RUNNING
            qemu.answers = True
            await world.until(lambda: world.vms.inventory.get("web").status.reason is None)
            assert (await world.act(VmAction.SHUTDOWN)).state is OperationState.SUCCEEDED

    asyncio.run(story())


def test_a_failed_start_says_why(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.vms.start()
        await world.create()
        world.launcher.fail_next = "qemu: no such thing\n"
        operation = await world.act(VmAction.START)
        assert operation.error is not None
        assert "no such thing" in operation.error.detail
        vm = world.vms.inventory.get("web")
        assert vm.status.state is VmState.STOPPED
        assert "no such thing" in (vm.status.reason or "")
        assert world.host.admission.promised_bytes == 0
        assert (await world.act(VmAction.START)).state is OperationState.SUCCEEDED
        await world.vms.stop()

    asyncio.run(story())


def test_memory_that_is_not_there(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.vms.start()
        await world.create(memory_bytes=16 << 30)
        operation = await world.act(VmAction.START)
        assert operation.error is not None
        assert operation.error.code is ErrorCode.INSUFFICIENT_RESOURCES
        assert "8192 MiB are free" in operation.error.detail
        assert world.launcher.launched == 0
        await world.vms.stop()

    asyncio.run(story())


def test_uefi_gets_variables_of_its_own(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            nvram = world.storage.vms_folder("main") / "web" / "nvram.fd"
            assert nvram.read_bytes() == b"template"
            nvram.write_bytes(b"changed")
            await world.act(VmAction.POWER_OFF)
            await world.act(VmAction.START)
            assert nvram.read_bytes() == b"changed"

    asyncio.run(story())


def test_bios_has_none(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, firmware=Firmware.BIOS) as world:
            assert not (world.storage.vms_folder("main") / "web" / "nvram.fd").exists()

    asyncio.run(story())


@pytest.mark.parametrize("paused", [False, True])
def test_a_new_vmkernel_finds_it_running(tmp_path: Path, paused: bool) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            before = world.vms.inventory.get("web")
            if paused:
                world.qemu().pause()
                await world.quiet()
            await world.restart()
            after = world.vms.inventory.get("web")
            assert after.status.state is (VmState.PAUSED if paused else VmState.RUNNING)
            assert after.status.started_at == before.status.started_at
            assert world.host.admission.promised_bytes > 0
            with await world.vms.consoles.open(
                "web", ConsoleKind.SERIAL, actor="test", origin=""
            ) as console:
                assert console.recv(100) == b"\0earlier"
            assert world.launcher.launched == 1

    asyncio.run(story())


def test_a_start_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().status = RunState.PRELAUNCH
            await world.restart()
            assert state(world) is VmState.RUNNING
            assert world.qemu().status is RunState.RUNNING

    asyncio.run(story())


def test_power_off_kills_a_qemu_that_hangs(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().hangs = True
            off = await world.act(VmAction.POWER_OFF)
            assert off.state is OperationState.SUCCEEDED, off.error
            assert state(world) is VmState.STOPPED
            assert world.launcher.qemus == {}

    asyncio.run(story())


def test_a_qemu_that_is_slow_to_answer_keeps_its_disks(tmp_path: Path) -> None:
    """Whatever a new vmkernel can't find out of it: it is there, so nobody else gets its disks."""

    async def story() -> None:
        world = World(tmp_path)
        world.storage.add_volume("data")
        await world.vms.start()
        await world.create(disks=(DiskSpec(volume="data"),))
        await world.act(VmAction.START)
        world.qemu().status_fails = 3
        await world.restart()
        assert state(world) is VmState.RUNNING
        assert world.vms.usage.volume_is_open("data")
        await world.until(
            lambda: not (world.qemu().status_fails or world.vms.inventory.get("web").status.reason)
        )
        assert state(world) is VmState.RUNNING
        # One that won't go on is no VM that is off either.
        world.qemu().status = RunState.INTERNAL_ERROR
        record = world.vms.inventory.driver("web")._machine.record
        assert record is not None
        world.vms.inventory.driver("web")._machine.note_record(resuming=True)
        await world.restart()
        vm = world.vms.inventory.get("web")
        assert vm.status.state is VmState.PAUSED
        assert "power it off" in (vm.status.reason or "")
        assert world.vms.usage.volume_is_open("data")
        assert (await world.act(VmAction.POWER_OFF)).state is OperationState.SUCCEEDED
        assert not world.vms.usage.volume_is_open("data")
        await world.operations.close()
        await world.vms.stop()

    asyncio.run(story())


def test_a_qemu_is_kept_whatever_else_cannot_be_made_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            tries = [1]

            def find(_: Path) -> None:
                if tries:
                    tries.pop()
                    raise OSError("the datastore hiccups")

            monkeypatch.setattr("vmkernel.vm.store.saved_memory.find", find)
            await world.restart()
            assert state(world) is VmState.RUNNING
            async with asyncio.timeout(10):
                while not world.vms.inventory.driver("web")._machine.connected:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert world.vms.inventory.get("web").status.started_at is not None
            assert (await world.act(VmAction.POWER_OFF)).state is OperationState.SUCCEEDED

    asyncio.run(story())


def test_what_ended_while_nobody_looked(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            await world.operations.close()
            await world.vms.stop()
            world.qemu().die()
            world.new_vmkernel()
            await world.vms.start()
            assert state(world) is VmState.CRASHED
            await world.restart()
            assert state(world) is VmState.STOPPED

    asyncio.run(story())


def test_consoles(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            with await world.vms.consoles.open(
                "web", ConsoleKind.VNC, actor="test", origin=""
            ) as console:
                assert console.recv(100).startswith(b"RFB")
            await world.act(VmAction.POWER_OFF)
            with pytest.raises(MicaError) as caught:
                await world.vms.consoles.open("web", ConsoleKind.SERIAL, actor="test", origin="")
            assert caught.value.problem.code is ErrorCode.CONFLICT

    asyncio.run(story())


def test_no_display_no_vnc(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, display=DisplayModel.NONE) as world:
            with pytest.raises(MicaError):
                await world.vms.consoles.open("web", ConsoleKind.VNC, actor="test", origin="")

    asyncio.run(story())


def test_hardware_stays_while_it_runs(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            vm = world.vms.inventory.get("web")
            named = replace(vm.spec, name="Web server")
            vm = await world.vms.changes.update("web", named, vm.revision, actor="test")
            assert vm.spec.name == "Web server"
            assert vm.revision == 2
            more = replace(vm.spec, memory_bytes=vm.spec.memory_bytes * 2)
            with pytest.raises(MicaError) as caught:
                await world.vms.changes.update("web", more, vm.revision, actor="test")
            assert caught.value.problem.code is ErrorCode.CONFLICT
            with pytest.raises(MicaError) as caught:
                await world.vms.changes.update("web", named, 1, actor="test")
            assert caught.value.problem.code is ErrorCode.REVISION_MISMATCH

    asyncio.run(story())


def test_a_guest_that_floods_pushes_nobody_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.events("vm.state")
            for _ in range(200):
                world.qemu().say(GuestPanicked("pvpanic"))
                world.qemu().say(GuestReset(by_guest=True))
            await world.quiet()
            told = world.events("vm.reset", "vm.guest-panicked")
            assert len(told) == 20
            assert world.vms.inventory.get("web").status.reason is None

    asyncio.run(story())


def test_what_is_left_out_is_counted() -> None:
    floods = EventRateLimit(most=2, window_s=10)
    assert [floods.admit("a", 1.0) for _ in range(5)] == [0, 0, None, None, None]
    assert floods.admit("b", 1.0) == 0
    assert floods.admit("a", 11.5) == 3
    assert floods.admit("a", 12.0) == 0


def test_a_vm_that_hangs_does_not_keep_its_host_from_ending(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:

            async def hang(_: RunningVm) -> None:
                await asyncio.Event().wait()

            work = asyncio.create_task(world.vms.inventory.use("web", VmRequest.OPERATE, hang))
            await world.quiet()
            left = await end_guests(
                world.vms.inventory.drivers(), timeout_s=0.05, force=True, grace_s=0.05
            )
            assert left == ("web",)
            work.cancel()

    asyncio.run(story())


def test_shutdown_of_the_host(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            await world.create("stubborn")
            await world.act(VmAction.START, "stubborn")
            world.qemu("stubborn").obeys = False
            left = await world.vms.power.shutdown_all(timeout_s=0.05, force=True)
            assert left == ("stubborn",)
            assert state(world) is VmState.STOPPED
            assert world.vms.inventory.get("stubborn").status.state is VmState.STOPPED

    asyncio.run(story())
