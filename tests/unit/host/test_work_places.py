"""Places for work on disks: a few at once, one left for quick work, and in turn for everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.framework.own_time import own_time, quiet
from vmkernel.events import EventBus
from vmkernel.host.cgroup import Cgroup
from vmkernel.host.runner import Runner
from vmkernel.host.work_places import Asker, WorkPlaces, asked_by
from vmkernel.model import ErrorCode, MicaError, OperationState, Subject
from vmkernel.operations import OperationContext, OperationRegistry


def _story(story: Callable[[WorkPlaces], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story(WorkPlaces())

    with own_time():
        asyncio.run(bounded())


class _Work:
    """Work that goes on until it is let go."""

    def __init__(self, places: WorkPlaces, who: str, *, long: bool = True) -> None:
        self.who = who
        self.end = asyncio.Event()
        self.runs = False
        self.waited = False
        self._long = long
        self.task = asyncio.create_task(self._run(places))

    def _tell(self) -> None:
        self.waited = True

    async def _run(self, places: WorkPlaces) -> None:
        asked_by.set(Asker(self.who, self._tell))
        async with places.taken(long=self._long):
            self.runs = True
            try:
                await self.end.wait()
            finally:
                self.runs = False


def test_long_work_leaves_a_place_for_quick_work() -> None:
    async def story(places: WorkPlaces) -> None:
        copies = [_Work(places, "a") for _ in range(6)]
        await quiet()
        assert [work.runs for work in copies] == [True] * 3 + [False] * 3
        assert [work.waited for work in copies] == [False] * 3 + [True] * 3
        quick = _Work(places, "b", long=False)
        await quiet()
        assert quick.runs
        assert not quick.waited
        second = _Work(places, "b", long=False)
        await quiet()
        assert not second.runs
        quick.end.set()
        await quiet()
        assert second.runs
        for work in (*copies, second):
            work.end.set()
        await asyncio.gather(*(work.task for work in (*copies, quick, second)))

    _story(story)


def test_nobody_s_many_copies_keep_another_s_waiting() -> None:
    async def story(places: WorkPlaces) -> None:
        greedy = [_Work(places, "greedy") for _ in range(30)]
        await quiet()
        other = _Work(places, "other")
        await quiet()
        greedy[0].end.set()
        await quiet()
        assert greedy[3].runs  # it had waited longest
        greedy[1].end.set()
        await quiet()
        assert other.runs
        assert not greedy[4].runs
        for work in (*greedy, other):
            work.end.set()
        await asyncio.gather(*(work.task for work in (*greedy, other)))

    _story(story)


def test_who_gives_up_leaves_the_queue_and_no_place_is_lost() -> None:
    async def story(places: WorkPlaces) -> None:
        running = [_Work(places, "a") for _ in range(3)]
        waiting = [_Work(places, "a") for _ in range(5)]
        await quiet()
        for work in waiting[:4]:
            work.task.cancel()
        running[0].task.cancel()
        await quiet()
        assert waiting[4].runs
        running[1].end.set()
        late = _Work(places, "a")
        await quiet()
        assert late.runs
        # Cancelled in the very step in which the place is handed over.
        last = _Work(places, "a")
        await quiet()
        late.end.set()
        await asyncio.sleep(0)
        last.task.cancel()
        for work in (*running, *waiting):
            work.end.set()
        await asyncio.gather(
            *(work.task for work in (*running, *waiting, late, last)), return_exceptions=True
        )
        again = [_Work(places, "a") for _ in range(3)]
        await quiet()
        assert all(work.runs for work in again)
        for work in again:
            work.end.set()
        await asyncio.gather(*(work.task for work in again))

    _story(story)


def test_waiting_ends_in_words() -> None:
    async def story(places: WorkPlaces) -> None:
        running = [_Work(places, "a") for _ in range(3)]
        await quiet()
        with pytest.raises(MicaError, match="try again") as caught:
            async with places.taken(long=True, wait_s=0.05):
                pass
        assert caught.value.problem.code is ErrorCode.UNAVAILABLE
        for work in running:
            work.end.set()
        await asyncio.gather(*(work.task for work in running))
        async with places.taken(long=True, wait_s=0.05):
            pass

    _story(story)


def test_an_operation_says_that_it_waits() -> None:
    async def story(places: WorkPlaces) -> None:
        registry = OperationRegistry(EventBus())
        running = [_Work(places, "a") for _ in range(3)]
        await quiet()

        async def work(context: OperationContext) -> None:
            async with places.taken(long=True):
                context.advance(1, 1, stage="copy")

        operation = registry.begin("x", Subject(kind="volume", id="v"), work, actor="me")
        await quiet()
        assert registry.get(operation.id).progress.stage == "waiting for a place"
        for each in running:
            each.end.set()
        ended = await registry.wait(operation.id, 5)
        assert ended.state is OperationState.SUCCEEDED
        assert ended.progress.stage == "copy"
        await asyncio.gather(*(each.task for each in running))

    _story(story)


def test_a_program_is_moved_into_its_group(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/cgroup.procs").touch()

    async def story() -> bytes:
        done = await Runner().run(
            ["sh", "-c", "echo $$"], timeout_s=20, cgroup=Cgroup("work", root=tmp_path)
        )
        missing = Cgroup("missing", root=tmp_path)
        await Runner().run(["true"], timeout_s=20, cgroup=missing)  # told in the log alone
        return done.stdout

    pid = asyncio.run(story())
    assert (tmp_path / "work/cgroup.procs").read_bytes() == pid.strip()
