"""What is known of operations after this process was killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.framework.running import on_loop
from vmkernel.events import EventBus
from vmkernel.model import ErrorCode, MicaError, Operation, OperationState, Subject
from vmkernel.operations import Journal, OperationContext, OperationRegistry, journal

VM = Subject(kind="vm", id="v")


def _registry(path: Path, bus: EventBus | None = None, **more: int) -> OperationRegistry:
    made = OperationRegistry(bus or EventBus(), journal=Journal(path), **more)
    made.load()
    return made


async def _nothing(_: OperationContext) -> None:
    """Succeeds at once."""


async def _fails(_: OperationContext) -> None:
    raise MicaError.field("/spec/x", "Wrong.", ErrorCode.CONFLICT)


async def _for_ever(_: OperationContext) -> None:
    await asyncio.Event().wait()


@on_loop
async def test_what_ended_stays_and_what_ran_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "run" / "operations.jsonl"
    before = _registry(path)
    good = await before.wait(before.begin("vm.start", VM, _nothing, actor="me").id, 5)
    bad = await before.wait(before.begin("vm.stop", VM, _fails, actor="me").id, 5)
    running = before.begin("image.pull", VM, _for_ever, actor="me", cancellable=True)
    bus = EventBus()
    after = _registry(path, bus)  # the other one was killed: it had no time to say anything
    assert after.get(good.id) == good
    assert after.get(bad.id) == bad
    now = after.get(running.id)
    assert (now.state, now.cancellable) == (OperationState.FAILED, False)
    assert now.error is not None
    assert now.error.code is ErrorCode.INTERRUPTED
    assert now.finished_at is not None
    with bus.subscribe_from_start() as events:
        event = events.poll()
        assert event is not None
        assert (event.type, event.subject.id) == ("operation.finished", running.id)
        assert events.poll() is None
    again = _registry(path, EventBus())
    assert again.all() == after.all(), "it is interrupted once"
    await before.close()


@on_loop
async def test_history_is_bounded_in_the_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_MAX_LINES", 50)
    path = tmp_path / "operations.jsonl"
    before = _registry(path, history_count=10)
    for _ in range(100):
        begun = before.begin("vm.start", VM, _nothing, actor="me")
        await before.wait(begun.id, 5)
    assert len(path.read_bytes().splitlines()) <= 61
    after = _registry(path, history_count=10)
    assert after.all() == before.all()
    assert len(path.read_bytes().splitlines()) == len(after.all()) <= 11


@on_loop
async def test_lines_that_were_cut_off_or_are_foreign_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "operations.jsonl"
    before = _registry(path)
    good = await before.wait(before.begin("vm.start", VM, _nothing, actor="me").id, 5)
    with path.open("ab") as file:
        file.write(b'{"id": 1}\n\xff\xfe\n{"id": "op-')
    assert _registry(path).all() == [good]
    path.unlink()
    path.mkdir()
    without = _registry(path)
    assert without.all() == []
    begun = without.begin("vm.start", VM, _nothing, actor="me")
    assert (await without.wait(begun.id, 5)).state is OperationState.SUCCEEDED


@on_loop
async def test_old_ones_are_forgotten_by_the_time_of_their_end(tmp_path: Path) -> None:
    path = tmp_path / "operations.jsonl"
    before = _registry(path)
    await before.wait(before.begin("vm.start", VM, _nothing, actor="me").id, 5)
    text = path.read_text().replace('"finished_at":"20', '"finished_at":"19')
    path.write_text(text)
    assert _registry(path).all() == []


@on_loop
async def test_one_that_begins_others_is_their_parent(tmp_path: Path) -> None:
    made = _registry(tmp_path / "operations.jsonl")
    children: list[Operation] = []

    async def work(_: OperationContext) -> None:
        children.append(made.begin("volume.create", VM, _nothing, actor="me"))
        await asyncio.sleep(0)

    parent = made.begin("vm.clone", VM, work, actor="me")
    await made.wait(parent.id, 5)
    assert [each.parent for each in children] == [parent.id]
    assert parent.parent is None
    assert made.begin("vm.start", VM, _nothing, actor="me").parent is None
    await made.close()


@on_loop
async def test_rate_and_remaining_time_are_those_of_the_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment_s = 100.0
    monkeypatch.setattr("vmkernel.operations.registry.time.monotonic", lambda: moment_s)
    made = OperationRegistry(EventBus())
    seen = []

    async def work(context: OperationContext) -> None:
        nonlocal moment_s
        for stage, step_s, done in (
            ("fetch", 0.0, 1000),
            ("fetch", 0.5, 2000),
            ("fetch", 1.5, 5000),
            ("verify", 1.0, 100),
            ("verify", 2.0, 100),
            ("verify", 2.0, 4100),
        ):
            moment_s += step_s
            context.advance(done, 10_000, stage=stage)
            progress = context.operation.progress
            seen.append((progress.rate_per_s, progress.remaining_s))

    ended = await made.wait(made.begin("image.pull", VM, work, actor="me").id, 5)
    assert seen == [(None, None), (None, None), (2000, 2), (None, None), (0, None), (1000, 5)]
    assert ended.progress.remaining_s is None
