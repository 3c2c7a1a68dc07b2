"""An action whose aim is reached succeeds, says so, and changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.framework.running import on_loop
from tests.unit.vm.test_service import started
from tests.unit.vm.world import World
from vmkernel.model import ErrorCode, MicaError, Operation, OperationState, VmAction, VmState

TO_RUNNING: tuple[VmAction, ...] = (VmAction.START,)
TO_PAUSED = (VmAction.START, VmAction.PAUSE)
TO_SUSPENDED = (VmAction.START, VmAction.SUSPEND)


async def _asked(world: World, action: VmAction, timeout_s: float = 30.0) -> Operation:
    return await world.vms.power.act("web", action, timeout_s=timeout_s, actor="test")


@on_loop
@pytest.mark.parametrize(
    ("way", "action", "state"),
    [
        (TO_RUNNING, VmAction.START, VmState.RUNNING),
        (TO_RUNNING, VmAction.RESUME, VmState.RUNNING),
        (TO_PAUSED, VmAction.PAUSE, VmState.PAUSED),
        (TO_SUSPENDED, VmAction.SUSPEND, VmState.SUSPENDED),
        ((), VmAction.SHUTDOWN, VmState.STOPPED),
        ((), VmAction.POWER_OFF, VmState.STOPPED),
        ((), VmAction.DISCARD_STATE, VmState.STOPPED),
    ],
)
async def test_what_is_done_already_succeeds(
    tmp_path: Path, way: tuple[VmAction, ...], action: VmAction, state: VmState
) -> None:
    async with started(tmp_path) as world:
        await world.create()
        for step in way:
            assert (await world.act(step)).unchanged is False
        process = world.vms.inventory.process_of("web")
        again = await _asked(world, action)
        assert (again.state, again.unchanged) == (OperationState.SUCCEEDED, True)
        assert world.vms.inventory.get("web").status.state is state
        assert world.vms.inventory.process_of("web") == process


@on_loop
async def test_starts_at_once_are_one_start(tmp_path: Path) -> None:
    async with started(tmp_path) as world:
        await world.create()
        asked = await asyncio.gather(*(_asked(world, VmAction.START) for _ in range(4)))
        ended = [await world.operations.wait(each.id, 10) for each in asked]
        assert {each.state for each in ended} == {OperationState.SUCCEEDED}
        changed = {each.id for each in ended if not each.unchanged}
        assert len(changed) == 1


@on_loop
async def test_a_start_on_its_way_is_the_same_operation(tmp_path: Path) -> None:
    async with started(tmp_path) as world:
        await world.create()
        first = await _asked(world, VmAction.START)
        for _ in range(10_000):
            await asyncio.sleep(0)
            if world.vms.inventory.get("web").status.state is VmState.STARTING:
                break
        assert (await _asked(world, VmAction.START)).id == first.id
        await world.operations.wait(first.id, 10)
        assert (await _asked(world, VmAction.START)).id != first.id


@on_loop
async def test_what_is_impossible_is_still_refused(tmp_path: Path) -> None:
    async with started(tmp_path) as world:
        await world.create()
        for action in (VmAction.RESET, VmAction.PAUSE, VmAction.RESUME, VmAction.SUSPEND):
            with pytest.raises(MicaError) as caught:
                await _asked(world, action)
            assert caught.value.problem.code is ErrorCode.CONFLICT, action
