"""An event loop whose time passes only while there is nothing to do."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.framework.own_time import own_time, quiet
from tests.framework.running import on_loop


@pytest.fixture(autouse=True)
def time_of_its_own() -> Iterator[None]:
    with own_time():
        yield


@on_loop
async def test_no_time_out_is_waited_for_and_their_order_holds() -> None:
    began, loop = time.monotonic(), asyncio.get_running_loop()
    told: list[float] = []
    for at in (600, 60, 1800):
        loop.call_later(at, told.append, at)
    await asyncio.sleep(1800)
    assert told == [60, 600, 1800]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(900):
            await asyncio.Event().wait()
    assert loop.time() == pytest.approx(2700)
    assert time.monotonic() - began < 60


@on_loop
async def test_no_time_passes_while_anything_is_done() -> None:
    """However slow the machine is: a span in which something was to happen isn't over before."""
    loop = asyncio.get_running_loop()

    async def work() -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        await asyncio.to_thread(time.sleep, 0.2)
        time.sleep(0.2)  # noqa: ASYNC251 - the machine is busy

    task = asyncio.create_task(work())
    await asyncio.sleep(0.001)
    assert task.done()
    assert loop.time() == pytest.approx(0.001)


@on_loop
async def test_quiet_is_when_nothing_more_comes() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    steps: list[str] = []

    async def chain() -> None:
        await asyncio.to_thread(time.sleep, 0.1)
        steps.append("a thread")
        theirs.send(b"x")
        await loop.sock_recv(ours, 1)
        steps.append("a socket")
        await asyncio.sleep(5)
        steps.append("time")

    ours.setblocking(False)
    task = asyncio.create_task(chain())
    await quiet()
    assert steps == ["a thread", "a socket"]
    assert loop.time() == 0
    await task
    ours.close()
    theirs.close()


@on_loop
async def test_a_thread_that_the_test_holds_up_is_not_waited_for() -> None:
    gate = threading.Event()
    held = asyncio.create_task(asyncio.to_thread(gate.wait, 10))
    other = asyncio.create_task(asyncio.to_thread(time.sleep, 0.1))
    await quiet(held=1)
    assert (held.done(), other.done()) == (False, True)
    gate.set()
    await quiet()
    assert held.done()


@on_loop
async def test_who_gives_up_a_thread_holds_no_time_up() -> None:
    gate = threading.Event()
    work = asyncio.create_task(asyncio.to_thread(gate.wait, 10))
    await quiet(held=1)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    gate.set()
    await quiet()
    await asyncio.sleep(1)


def test_on_an_ordinary_loop_nobody_knows() -> None:
    asyncio.set_event_loop_policy(None)
    with pytest.raises(AssertionError, match="own_time"):
        asyncio.run(quiet())
