"""The host's end: guests first, once, told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from vmkernel.events import EventBus
from vmkernel.model import ErrorCode, MicaError, OperationState, PowerAction, Progress
from vmkernel.operations import OperationRegistry
from vmkernel.platform.power import HostPower


@dataclass
class Machine:
    """Guests and switch in one, which notes the order of things."""

    done: list[str] = field(default_factory=list)
    forced: tuple[str, ...] = ()
    fails: bool = False

    async def power_off(self) -> None:
        self.done.append("power off")

    async def reboot(self) -> None:
        self.done.append("reboot")

    async def shutdown_all(
        self,
        *,
        timeout_s: float,
        force: bool,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> tuple[str, ...]:
        assert timeout_s > 0
        assert force
        assert on_progress is not None
        if self.fails:
            raise MicaError(ErrorCode.INTERNAL, "broken")
        for number in (0, 1, 1):
            on_progress(Progress(done=number, total=1, unit="vms"))
        self.done.append("guests")
        return self.forced

    def shutdown_cancelled(self) -> None:
        self.done.append("called off")


def end(machine: Machine, action: PowerAction) -> tuple[OperationState, list[str]]:
    """How the operation ended and what the console told."""

    async def scenario() -> tuple[OperationState, list[str]]:
        story: list[str] = []
        operations = OperationRegistry(EventBus())
        power = HostPower(machine, operations, machine, story.append)
        operation = power.begin(action, actor="admin")
        with pytest.raises(MicaError) as caught:
            power.begin(action, actor="admin")
        assert caught.value.problem.code is ErrorCode.CONFLICT
        operation = await operations.wait(operation.id, 5)
        assert power.ending is not machine.fails
        return operation.state, story

    return asyncio.run(scenario())


def test_guests_end_before_the_machine() -> None:
    machine = Machine(forced=("web",))
    state, story = end(machine, PowerAction.SHUTDOWN)
    assert state is OperationState.SUCCEEDED
    assert machine.done == ["guests", "power off"]
    assert "guests ended: 1 of 1" in story
    assert any("web" in line for line in story)


def test_reboot() -> None:
    machine = Machine()
    end(machine, PowerAction.REBOOT)
    assert machine.done == ["guests", "reboot"]


def test_a_failure_leaves_the_machine_on_and_can_be_tried_again() -> None:
    machine = Machine(fails=True)
    state, _ = end(machine, PowerAction.SHUTDOWN)
    assert state is OperationState.FAILED
    assert machine.done == ["called off"]
