"""Operations: how they end, how they are cancelled, what is remembered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import pytest

from vmkernel.events import EventBus
from vmkernel.model import ErrorCode, MicaError, OperationState, Progress, Subject
from vmkernel.operations import OperationContext, OperationRegistry
from vmkernel.operations import registry as registry_module

VM = Subject(kind="vm", id="v")
Scenario = Callable[[OperationRegistry], Awaitable[None]]


def _run(scenario: Scenario, **limits: float) -> None:
    async def main() -> None:
        registry = OperationRegistry(EventBus(), **limits)  # type: ignore[arg-type]
        await scenario(registry)
        await registry.close()

    asyncio.run(main())


async def _nothing(_: OperationContext) -> None:
    """Succeeds at once."""


async def _for_ever(_: OperationContext) -> None:
    await asyncio.Event().wait()


def test_work_that_returns_has_succeeded() -> None:
    async def scenario(registry: OperationRegistry) -> None:
        async def work(context: OperationContext) -> None:
            context.progress(Progress(done=1, total=2, stage="half"))
            await asyncio.sleep(0)

        begun = registry.begin("vm.start", VM, work, actor="me")
        assert begun.state is OperationState.RUNNING
        assert registry.running(VM) == [begun]
        ended = await registry.wait(begun.id, 5)
        assert ended.state is OperationState.SUCCEEDED
        assert ended.progress == Progress(done=1, total=2, stage="half")
        assert ended.finished_at is not None
        assert ended.finished_at >= ended.created_at
        assert registry.running(VM) == []

    _run(scenario)


def test_a_typed_failure_is_kept_as_it_is() -> None:
    async def scenario(registry: OperationRegistry) -> None:
        async def work(_: OperationContext) -> None:
            raise MicaError.field("/spec/x", "Wrong.", ErrorCode.CONFLICT)

        ended = await registry.wait(registry.begin("k", VM, work, actor="me").id, 5)
        assert ended.state is OperationState.FAILED
        assert ended.error is not None
        assert (ended.error.code, ended.error.detail) == (ErrorCode.CONFLICT, "Wrong.")

    _run(scenario)


def test_an_unexpected_failure_is_an_incident(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(registry: OperationRegistry) -> None:
        async def work(_: OperationContext) -> None:
            raise RuntimeError("with a secret in it")

        ended = await registry.wait(registry.begin("k", VM, work, actor="me").id, 5)
        assert ended.error is not None
        assert ended.error.code is ErrorCode.INTERNAL
        assert "secret" not in ended.error.detail
        incident = ended.error.detail.split()[-1].rstrip(".")
        assert incident in caplog.text
        assert "RuntimeError" in caplog.text

    with caplog.at_level(logging.ERROR):
        _run(scenario)


def test_cancelling_lets_the_work_clean_up() -> None:
    async def scenario(registry: OperationRegistry) -> None:
        cleaned = []

        async def work(_: OperationContext) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned.append(True)

        begun = registry.begin("k", VM, work, actor="me", cancellable=True)
        ended = await registry.cancel(begun.id, "me")
        assert ended.state is OperationState.CANCELLED
        assert cleaned == [True]
        assert await registry.cancel(begun.id, "me") == ended

    _run(scenario)


def test_what_cannot_be_cancelled_says_so() -> None:
    async def scenario(registry: OperationRegistry) -> None:
        fixed = registry.begin("k", VM, _for_ever, actor="me")
        with pytest.raises(MicaError) as caught:
            await registry.cancel(fixed.id, "me")
        assert caught.value.problem.code is ErrorCode.CONFLICT

        async def late(context: OperationContext) -> None:
            context.commit_point()
            await asyncio.Event().wait()

        past = registry.begin("k", VM, late, actor="me", cancellable=True)
        await asyncio.sleep(0)
        with pytest.raises(MicaError):
            await registry.cancel(past.id, "me")

    _run(scenario)


def test_waiting_ends_with_the_time() -> None:
    async def scenario(registry: OperationRegistry) -> None:
        begun = registry.begin("k", VM, _for_ever, actor="me")
        assert (await registry.wait(begun.id, 0.01)).state is OperationState.RUNNING

    _run(scenario)


def test_ending_cancels_what_runs_and_refuses_the_rest() -> None:
    async def scenario(registry: OperationRegistry) -> None:
        begun = registry.begin("k", VM, _for_ever, actor="me")
        await registry.close()
        assert registry.get(begun.id).state is OperationState.CANCELLED
        with pytest.raises(MicaError) as caught:
            registry.begin("k", VM, _nothing, actor="me")
        assert caught.value.problem.code is ErrorCode.UNAVAILABLE

    _run(scenario)


def test_history_is_bounded_and_what_runs_is_never_forgotten() -> None:
    async def scenario(registry: OperationRegistry) -> None:
        running = registry.begin("k", VM, _for_ever, actor="me")
        ids = []
        for _ in range(10):
            ids.append(registry.begin("k", VM, _nothing, actor="me").id)
            await registry.wait(ids[-1], 5)
        assert [operation.id for operation in registry.all()] == [running.id, *ids[-3:]]
        assert ids == sorted(ids)
        with pytest.raises(MicaError) as caught:
            registry.get(ids[0])
        assert caught.value.problem.code is ErrorCode.NOT_FOUND

    _run(scenario, history_count=3)


def test_history_is_bounded_by_age() -> None:
    async def scenario(registry: OperationRegistry) -> None:
        begun = registry.begin("k", VM, _nothing, actor="me")
        await asyncio.sleep(0.05)
        with pytest.raises(MicaError):
            registry.get(begun.id)

    _run(scenario, history_age_s=0.01)


def test_start_and_end_are_events() -> None:
    async def main() -> None:
        bus = EventBus()
        registry = OperationRegistry(bus)
        with bus.subscribe() as subscription:
            begun = registry.begin("vm.start", VM, _nothing, actor="me")
            await registry.wait(begun.id, 5)
            events = [await subscription.next(), await subscription.next()]
        kinds = [(event.type, event.subject.id, event.actor) for event in events if event]
        assert kinds == [
            ("operation.started", begun.id, "me"),
            ("operation.finished", begun.id, "me"),
        ]
        assert events[1] is not None
        assert events[1].data["state"] == "succeeded"

    asyncio.run(main())


def test_one_actor_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_RUNNING_EACH", 3)

    async def scenario(registry: OperationRegistry) -> None:
        running = [
            registry.begin("k", VM, _for_ever, actor="loud", cancellable=True) for _ in range(3)
        ]
        with pytest.raises(MicaError) as caught:
            registry.begin("k", VM, _for_ever, actor="loud")
        assert caught.value.problem.code is ErrorCode.RATE_LIMITED
        registry.begin("k", VM, _for_ever, actor="quiet")
        for _ in range(9):
            registry.begin("k", VM, _for_ever, actor="system")
        await registry.cancel(running[0].id, "loud")
        await asyncio.sleep(0)
        registry.begin("k", VM, _for_ever, actor="loud")

    _run(scenario)


def test_nobodys_history_is_pushed_out_by_anothers() -> None:
    async def scenario(registry: OperationRegistry) -> None:
        async def work(_: OperationContext) -> None:
            return None

        kept = await registry.wait(registry.begin("k", VM, work, actor="quiet").id, 5)
        for _number in range(100):
            last = registry.begin("k", VM, work, actor="loud")
            await registry.wait(last.id, 5)
        known = [operation.id for operation in registry.all()]
        assert (known[0], known[-1], len(known)) == (kept.id, last.id, 20)

    _run(scenario, history_count=20)


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled", "is cancelled at once"])
def test_what_an_operation_holds_is_released_before_it_has_ended(end: str) -> None:
    async def scenario(registry: OperationRegistry) -> None:
        released: list[OperationState] = []
        held = contextlib.ExitStack()

        async def work(_: OperationContext) -> None:
            assert not released
            if end == "raises":
                raise MicaError(ErrorCode.CONFLICT, "No.")
            if end != "returns":
                await asyncio.Event().wait()

        held.callback(lambda: released.append(registry.get(begun.id).state))
        begun = registry.begin("x.y", VM, work, actor="me", cancellable=True, held=held)
        held.close()  # the caller has nothing left to close
        assert not released
        if end == "is cancelled":
            await asyncio.sleep(0)
            await registry.cancel(begun.id, "me")
        if end == "is cancelled at once":
            (task,) = (task for task in asyncio.all_tasks() if task.get_name() == begun.id)
            task.cancel()
        await registry.wait(begun.id, 5)
        assert released == [OperationState.RUNNING]

    _run(scenario)


@pytest.mark.parametrize("reason", ["too many run", "the vmkernel ends"])
def test_what_a_refused_operation_holds_is_released_at_once(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_RUNNING_EACH", 0)

    async def scenario(registry: OperationRegistry) -> None:
        if reason == "the vmkernel ends":
            await registry.close()
        released: list[str] = []
        held = contextlib.ExitStack()
        held.callback(released.append, "it")
        with pytest.raises(MicaError):
            registry.begin("x.y", VM, _nothing, actor="me", held=held)
        assert released == ["it"]
        assert registry.all() == []

    _run(scenario)
