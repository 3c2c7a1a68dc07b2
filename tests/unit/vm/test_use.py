"""Work by other parts of the VM side: inside the owner task, behind holds, on the spec."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from vmkernel.model import ErrorCode, MicaError, OperationState, VmAction, VmState
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.states import VmRequest

from .test_driver import running


def test_work_runs_with_qemu_and_its_answer_comes_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            world.qemu().replies["query-vcpus"] = [1]

            async def ask(vm: RunningVm) -> object:
                return await vm.qmp.ask("query-vcpus", list[int])

            assert await world.vms.inventory.use("web", VmRequest.QUERY, ask) == [1]
            assert world.qemu().commands == [("query-vcpus", {})]

    asyncio.run(story())


def test_nothing_else_changes_the_vm_while_work_runs(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            inside, go_on = asyncio.Event(), asyncio.Event()

            async def wait(_: RunningVm) -> VmState:
                inside.set()
                await go_on.wait()
                return world.vms.inventory.get("web").status.state

            work = asyncio.create_task(world.vms.inventory.use("web", VmRequest.OPERATE, wait))
            await inside.wait()
            off = asyncio.create_task(world.act(VmAction.POWER_OFF))
            await world.quiet()
            assert not off.done()
            go_on.set()
            assert await work is VmState.RUNNING
            assert (await off).state is OperationState.SUCCEEDED

    asyncio.run(story())


def test_work_is_refused_where_there_is_no_qemu(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            await world.act(VmAction.POWER_OFF)

            async def never(_: RunningVm) -> None:
                raise AssertionError("it must not be called")

            with pytest.raises(MicaError) as caught:
                await world.vms.inventory.use("web", VmRequest.OPERATE, never)
            assert caught.value.problem.code is ErrorCode.CONFLICT

    asyncio.run(story())


def test_a_hold_blocks_what_it_names_and_names_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            blocks = frozenset({VmRequest.POWER_OFF, VmRequest.HOLD})
            with world.vms.inventory.hold("web", "a backup is under way", blocks):
                with pytest.raises(MicaError, match="a backup is under way"):
                    await world.act(VmAction.POWER_OFF)
                with (
                    pytest.raises(MicaError, match="a backup is under way"),
                    world.vms.inventory.hold("web", "a second one", blocks),
                ):
                    raise AssertionError("two at once")
            assert (await world.act(VmAction.POWER_OFF)).state is OperationState.SUCCEEDED

    asyncio.run(story())


def test_a_changed_spec_counts_and_outlives_us(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as world:
            spec = replace(world.vms.inventory.get("web").spec, name="moved")
            vm = await world.vms.changes.update("web", spec, 1, actor="test")
            assert (vm.revision, vm.spec.name) == (2, "moved")
            await world.restart()
            assert world.vms.inventory.get("web").spec.name == "moved"

    asyncio.run(story())
