"""The restart policy: as a pure thing, and at work."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.framework.running import on_loop
from vmkernel.model import (
    OnPanic,
    OperationState,
    RestartPolicy,
    RestartSpec,
    VmAction,
    VmState,
)
from vmkernel.qemu import GuestPanicked, RunState, WatchdogFired
from vmkernel.vm.machine.exit_reason import UNFED
from vmkernel.vm.machine.restart_policy import End, RestartPolicyState

from .test_driver import running, state
from .world import World

FAILURE = RestartSpec(policy=RestartPolicy.ON_FAILURE)
ALWAYS = RestartSpec(policy=RestartPolicy.ALWAYS)


def test_the_wait_doubles_to_five_minutes() -> None:
    restarts = RestartPolicyState()
    waits = [restarts.after(End.FAILED, FAILURE, ran_s=1, now=0) for _ in range(11)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert restarts.after(End.FAILED, FAILURE, ran_s=600, now=0) == 1


@given(st.sampled_from(End), st.sampled_from(RestartPolicy), st.integers(0, 40))
def test_what_was_asked_for_is_never_undone(end: End, policy: RestartPolicy, before: int) -> None:
    restarts = RestartPolicyState(attempts=before)
    wait_s = restarts.after(end, RestartSpec(policy=policy), ran_s=0, now=0)
    if end is End.ASKED or policy is RestartPolicy.NEVER:
        assert wait_s is None
        assert not restarts.pending
    if end is End.FAILED and policy is not RestartPolicy.NEVER:
        assert wait_s is not None
        assert 0 < wait_s <= restarts.last_s
    if end is End.GUEST:
        assert (wait_s is not None) == (policy is RestartPolicy.ALWAYS)


def test_it_gives_up() -> None:
    restarts = RestartPolicyState()
    spec = RestartSpec(policy=RestartPolicy.ALWAYS, max_attempts=2)
    waits = [restarts.after(End.FAILED, spec, ran_s=0, now=0) for _ in range(3)]
    assert waits == [1, 2, None]
    assert restarts.exhausted


async def _until(world: World, wanted: VmState) -> None:
    await world.until(lambda: state(world) is wanted)


@on_loop
async def test_a_crash_is_mended(tmp_path: Path) -> None:
    async with running(tmp_path, restart=FAILURE) as world:
        for attempt in (1, 2):
            world.qemu().die()
            await _until(world, VmState.CRASHED)
            status = world.vms.inventory.get("web").status.restart
            assert status is not None
            assert status.attempts == attempt
            assert status.next_at is not None
            await _until(world, VmState.RUNNING)
        assert world.launcher.launched == 3
        assert [e.data["attempt"] for e in world.events("vm.restarting")] == [1, 2]


@on_loop
async def test_a_start_that_fails_is_tried_again_and_then_given_up(tmp_path: Path) -> None:
    spec = RestartSpec(policy=RestartPolicy.ON_FAILURE, max_attempts=1)
    async with running(tmp_path, restart=spec) as world:
        world.launcher.fail_next = "broken"
        world.qemu().die()
        await _until(world, VmState.STOPPED)
        await world.until(
            lambda: "not be restarted" in (world.vms.inventory.get("web").status.reason or "")
        )
        assert len(world.events("vm.restart-given-up")) == 1
        assert (await world.act(VmAction.START)).state is OperationState.SUCCEEDED
        assert world.vms.inventory.get("web").status.restart is None


@on_loop
async def test_nothing_asked_for_is_undone(tmp_path: Path) -> None:
    async with running(tmp_path, restart=ALWAYS) as world:
        await world.act(VmAction.SHUTDOWN)
        await asyncio.sleep(0.1)
        assert state(world) is VmState.STOPPED
        await world.act(VmAction.START)
        await world.act(VmAction.POWER_OFF)
        await asyncio.sleep(0.1)
        assert state(world) is VmState.STOPPED
        await world.act(VmAction.START)
        world.qemu().obeys = False
        await world.act(VmAction.SHUTDOWN, timeout_s=0.02)
        world.qemu().end(by_guest=True, cause="guest-shutdown")  # late, but as asked
        await asyncio.sleep(0.1)
        assert state(world) is VmState.STOPPED
        await world.act(VmAction.START)
        world.qemu().end(by_guest=True, cause="guest-shutdown")
        await _until(world, VmState.STOPPED)
        await _until(world, VmState.RUNNING)


@on_loop
async def test_a_power_off_ends_the_waiting(tmp_path: Path) -> None:
    async with running(tmp_path, restart=FAILURE) as world:
        for _ in range(3):  # until the wait is long
            world.qemu().die()
            await _until(world, VmState.CRASHED)
            await _until(world, VmState.RUNNING)
        world.qemu().die()
        await _until(world, VmState.CRASHED)
        assert (await world.act(VmAction.POWER_OFF)).state is OperationState.SUCCEEDED
        assert world.vms.inventory.get("web").status.restart is None
        launched = world.launcher.launched
        await asyncio.sleep(0.2)
        assert world.launcher.launched == launched


@on_loop
async def test_a_host_that_ends_starts_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, restart=ALWAYS) as world:
        world.host.ending.set()
        world.qemu().end(by_guest=False, cause="host-signal")
        await asyncio.sleep(0.1)
        assert state(world) is VmState.STOPPED


@on_loop
async def test_a_crash_that_nobody_saw(tmp_path: Path) -> None:
    async with running(tmp_path, restart=FAILURE) as world:
        await world.operations.close()
        await world.vms.stop()
        world.qemu().die()
        world.new_vmkernel()
        await world.vms.start()
        await _until(world, VmState.RUNNING)


@on_loop
async def test_a_watchdog_that_bites(tmp_path: Path) -> None:
    """What it did is told, also by a vmkernel that came later; an end by it is a crash."""
    async with running(tmp_path, restart=FAILURE) as world:
        world.qemu().say(WatchdogFired("pause"))
        world.qemu().pause(RunState.WATCHDOG)
        await _until(world, VmState.PAUSED)
        assert world.vms.inventory.get("web").status.reason == UNFED
        await world.restart()
        await _until(world, VmState.PAUSED)
        assert world.vms.inventory.get("web").status.reason == UNFED
        await world.act(VmAction.RESUME)
        assert world.vms.inventory.get("web").status.reason is None
        world.qemu().say(WatchdogFired("poweroff"))
        world.qemu().die(None)
        await _until(world, VmState.CRASHED)
        assert UNFED in (world.vms.inventory.get("web").status.reason or "")
        await _until(world, VmState.RUNNING)


@on_loop
async def test_panics(tmp_path: Path) -> None:
    async with running(tmp_path, restart=FAILURE, on_panic=OnPanic.RESET) as world:
        assert ("set-action", {"panic": "pause"}) in world.qemu().commands
        world.qemu().say(GuestPanicked("pause"))
        world.qemu().pause(RunState.GUEST_PANICKED)
        await world.until(lambda: world.qemu().resets and state(world) is VmState.RUNNING)
        assert (world.qemu().resets, world.qemu().status) == (1, RunState.RUNNING)
        vm = world.vms.inventory.get("web")
        from msgspec.structs import replace

        spec = replace(vm.spec, on_panic=OnPanic.POWER_OFF)
        await world.vms.changes.update("web", spec, vm.revision, actor="test")
        assert world.qemu().commands[-1] == ("set-action", {"panic": "shutdown"})
        world.qemu().end(by_guest=True, cause="guest-panic")
        await _until(world, VmState.CRASHED)
        assert "panic" in (world.vms.inventory.get("web").status.reason or "")
        await _until(world, VmState.RUNNING)
