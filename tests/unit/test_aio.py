"""What must not be left half done is brought to its end, and its outcome counts."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from vmkernel.aio import run_to_end


@pytest.mark.parametrize("cancels", [0, 1, 3])
@pytest.mark.parametrize("fails", [False, True])
def test_the_outcome_counts_however_often_it_is_cancelled(cancels: int, fails: bool) -> None:
    async def scenario() -> None:
        gate, begun, ended = asyncio.Event(), asyncio.Event(), []

        async def work() -> str:
            begun.set()
            await gate.wait()
            ended.append(True)
            if fails:
                raise ValueError("no room")
            return "done"

        async def owner() -> tuple[str, int]:
            outcome = ""
            with contextlib.suppress(ValueError):
                outcome = await run_to_end(work())
            me = asyncio.current_task()
            assert me is not None
            return outcome or "failed", me.cancelling()

        task = asyncio.create_task(owner())
        await begun.wait()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not task.done()
        gate.set()
        assert await task == ("failed" if fails else "done", cancels)
        assert ended == [True]

    asyncio.run(scenario())


def test_work_that_ends_itself_as_cancelled_is_cancelled() -> None:
    async def scenario() -> None:
        async def work() -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await run_to_end(work())

    asyncio.run(scenario())
