"""QMP with a QEMU that may be in its guest's hands: what it sends is neither kept nor believed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from vmkernel.qemu import (
    GuestEnded,
    GuestPanicked,
    QemuEvent,
    QmpCommandError,
    QmpLostError,
    QmpNonsenseError,
    QmpSession,
    ReportsMissed,
    RunState,
    WatchdogFired,
    link,
)
from vmkernel.qemu.answers import Job, Migration
from vmkernel.qemu.budget import Budget

GREETING = b'{"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": ["oob"]}}\r\n'


@dataclass
class Server:
    """QEMU's end."""

    sock: socket.socket

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def line(self) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\n"):
            data += await asyncio.get_running_loop().sock_recv(self.sock, 1)
        found: dict[str, Any] = json.loads(data)
        return found

    async def answer(self, reply: bytes) -> dict[str, Any]:
        """Answer the next command with `"return": ...` or `"error": ...`."""
        asked = await self.line()
        await self.say(b'{%s, "id": %d}\r\n' % (reply, asked["id"]))
        return asked


def event(name: str, data: bytes = b"{}", at: int = 0) -> bytes:
    """As QEMU prints it."""
    stamp = b'{"timestamp": {"seconds": 1, "microseconds": %d}, ' % at
    return stamp + b'"event": "%s", "data": %s}\r\n' % (name.encode(), data)


@contextlib.asynccontextmanager
async def session() -> AsyncIterator[tuple[QmpSession, Server]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    server = Server(theirs)

    async def greet() -> None:
        await server.say(GREETING)
        assert (await server.answer(b'"return": {}'))["execute"] == "qmp_capabilities"

    with theirs:
        opened, _ = await asyncio.gather(QmpSession.open(ours, "web", timeout_s=30.0), greet())
        try:
            yield opened, server
        finally:
            await opened.close()


def run(story: Callable[[QmpSession, Server], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(120.0), session() as (opened, server):
            await story(opened, server)

    asyncio.run(whole())


def test_commands_and_answers() -> None:
    async def story(qmp: QmpSession, qemu: Server) -> None:
        status, asked = await asyncio.gather(
            qmp.query_status(), qemu.answer(b'"return": {"status": "running", "running": true}')
        )
        assert (status, asked["execute"]) == (RunState.RUNNING, "query-status")
        with pytest.raises(QmpCommandError, match=r"refused stop: no \[31mway$"):
            await asyncio.gather(
                qmp.stop(), qemu.answer(b'"error": {"class": "x", "desc": "no \\u001b[31mway"}')
            )
        await qemu.say(event("SHUTDOWN", b'{"guest": true, "reason": "guest-shutdown"}'))
        assert await qmp.next_event() == GuestEnded(by_guest=True, cause="guest-shutdown")
        qemu.sock.close()
        with pytest.raises(QmpLostError):
            await qmp.next_event()
        with pytest.raises(QmpLostError):
            await qmp.query_status()

    run(story)


def test_descriptors_travel_with_their_command() -> None:
    async def story(qmp: QmpSession, qemu: Server) -> None:
        with socket.socket() as given:
            adding = asyncio.ensure_future(qmp.add_fd(given.fileno(), "mine"))
            while True:
                await asyncio.sleep(0.001)
                with contextlib.suppress(BlockingIOError):
                    data, fds, _, _ = socket.recv_fds(qemu.sock, 4096, 4)
                    break
            asked = json.loads(data)
            assert asked["arguments"] == {"opaque": "mine"}
            assert len(fds) == 1
            socket.close(fds[0])
            await qemu.say(b'{"return": {"fdset-id": 3, "fd": 9}, "id": %d}\n' % asked["id"])
            assert await adding == 3

    run(story)


PANIC = event("GUEST_PANICKED", b'{"action": "run", "info": {"type": "pvpanic"}}')
FLOODS: dict[str, Callable[[int], bytes]] = {
    "one event over and over": lambda _: PANIC,
    "two events in turn": lambda n: PANIC if n % 2 else event("GUEST_CRASHLOADED"),
    "an event that differs each time": lambda n: event(
        "BLOCK_IO_ERROR", b'{"device": "%d", "reason": "x"}' % n, n
    ),
    "events that nobody knows": lambda n: event(f"X{n}", b'{"a": [%d]}' % n, n),
    "ends": lambda n: event("SHUTDOWN", b'{"guest": true, "reason": "%d"}' % n, n),
    "events that are watched": lambda n: event("MIGRATION", b'{"status": "%d"}' % n, n),
    "answers that nobody asked for": lambda n: b'{"return": {"n": %d}, "id": %d}\n' % (n, n + 99),
    "answers without an id": lambda n: b'{"return": [%d]}\n' % n,
    "greetings": lambda _: GREETING,
    "empty lines": lambda _: b"\n",
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_leaves_memory_flat(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 messages and a task that takes none of the events; then the session works on."""
    monkeypatch.setattr(link, "_RATE", 10.0)  # all of it, now
    make = FLOODS[kind]

    async def story(qmp: QmpSession, qemu: Server) -> None:
        with qmp.watch("MIGRATION"):
            await qemu.say(b"".join(make(n) for n in range(500)))  # fills what has a limit
            await asyncio.sleep(0.05)
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            for begin in range(1_000, 21_000, 1_000):
                await qemu.say(b"".join(make(n) for n in range(begin, begin + 1_000)))
            status, _ = await asyncio.gather(
                qmp.query_status(), qemu.answer(b'"return": {"status": "running"}')
            )
            after, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert status is RunState.RUNNING
        assert after - before < 256 << 10

    run(story)


def test_an_event_is_told_again_once_it_was_taken() -> None:
    async def story(qmp: QmpSession, qemu: Server) -> None:
        for _ in range(3):
            await qemu.say(PANIC * 3)
            assert await qmp.next_event() == GuestPanicked("pvpanic")
        await qemu.say(event("STOP"))
        events = [await qmp.next_event()]
        while isinstance(events[-1], GuestPanicked):
            events.append(await qmp.next_event())
        assert len(events) <= 2

    run(story)


def test_the_end_is_told_whatever_was_said_before() -> None:
    async def story(qmp: QmpSession, qemu: Server) -> None:
        for begin in range(0, 2_000, 500):
            await qemu.say(
                b"".join(
                    event("BLOCK_IO_ERROR", b'{"device": "%d"}' % n, n)
                    for n in range(begin, begin + 500)
                )
            )
        await qemu.say(event("SHUTDOWN", b'{"guest": true}'))
        while not isinstance(await qmp.next_event(), GuestEnded):
            pass

    run(story)


def test_a_watchdog_that_ends_qemu_is_an_end() -> None:
    async def story(qmp: QmpSession, qemu: Server) -> None:
        await qemu.say(_errors(0, 500) + event("WATCHDOG", b'{"action": "poweroff"}') * 2)
        await qemu.say(event("SHUTDOWN", b'{"guest": true}'))
        found = await _until_end(qmp)
        assert found.count(WatchdogFired("poweroff")) == 1

    run(story)


def test_what_is_dropped_is_told_by_one_report() -> None:
    """It stands behind all that was kept; what is dropped once it was taken is told again."""

    async def story(qmp: QmpSession, qemu: Server) -> None:
        first: list[QemuEvent] = []
        for begin in (0, 1_000):
            await qemu.say(_errors(begin, begin + 400) + event("DEVICE_DELETED", b'{"device":"d"}'))
            await _answered(qmp, qemu)
            while not isinstance(found := await qmp.next_event(), ReportsMissed):
                first.append(found)
            assert len(first) == 256
            first.clear()
        await qemu.say(event("SHUTDOWN", b'{"guest": true}'))
        assert await _until_end(qmp) == []

    run(story)


def _errors(begin: int, end: int) -> bytes:
    return b"".join(event("BLOCK_IO_ERROR", b'{"device": "%d"}' % n, n) for n in range(begin, end))


async def _answered(qmp: QmpSession, qemu: Server) -> None:
    """Once this is answered, all that was said before it has been read."""
    await asyncio.gather(qmp.query_status(), qemu.answer(b'"return": {"status": "running"}'))


async def _until_end(qmp: QmpSession) -> list[QemuEvent]:
    found: list[QemuEvent] = []
    while not isinstance(found_now := await qmp.next_event(), GuestEnded):
        found.append(found_now)
    return found


@pytest.mark.parametrize(
    "line",
    [
        b"x" * (link.LINE_MAX_BYTES + 2),
        b'{"return": "' + b"x" * link.LINE_MAX_BYTES + b'"}\n',
        b"[" * 1_000_000 + b"\n",
        b'{"return": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b', "id": 1}\n',
        b'{"id": [1], "return": {}}\n',
        b'{"id": {"a": 1}, "return": {}}\n',
        b'{"id": ' + b"9" * 100_000 + b', "return": {}}\n',
        b'{"event": 7}\n',
        b'{"event": "' + b"X" * 1_000 + b'"}\n',
        b'{"error": "x", "id": 1}\n',
        b"\xff\xfe\n",
        b"7\n",
        b"null\n",
        b"{\n",
    ],
    ids=lambda line: line[:20].decode(errors="replace"),
)
def test_what_breaks_the_protocol_ends_the_session(line: bytes) -> None:
    async def story(qmp: QmpSession, qemu: Server) -> None:
        asking = asyncio.ensure_future(qmp.query_status())
        with contextlib.suppress(OSError):
            await qemu.say(line)
        with pytest.raises(QmpLostError) as lost:
            await asking
        assert len(str(lost.value)) < 300
        with pytest.raises(QmpLostError):
            await qmp.next_event()

    run(story)


@pytest.mark.parametrize(
    "answer",
    [
        b'"return": {"status": "active", "ram": {"total": 1' + b"0" * 30 + b"}}",
        b'"return": {"status": "active", "ram": {"total": -1}}',
        b'"return": {"status": "active", "ram": {"total": 1.5}}',
        b'"return": {"status": "active", "ram": {"total": 1e400}}',
        b'"return": {"status": "' + b"x" * 100_000 + b'"}',
        b'"return": ' + b'{"ram":' * 2_000 + b"1" + b"}" * 2_000,
        b'"return": []',
        b'"return": null',
    ],
    ids=lambda answer: answer[:60].decode(),
)
def test_an_answer_out_of_its_range_costs_that_request(answer: bytes) -> None:
    async def story(qmp: QmpSession, qemu: Server) -> None:
        with pytest.raises((QmpNonsenseError, QmpLostError)):
            await asyncio.gather(qmp.ask("query-migrate", Migration), qemu.answer(answer))

    run(story)


def test_a_list_out_of_its_range_costs_that_request() -> None:
    async def story(qmp: QmpSession, qemu: Server) -> None:
        job = b'{"id": "a", "status": "b"}'
        many = b'"return": [%s]' % b",".join([job] * 10_000)
        with pytest.raises(QmpNonsenseError):
            await asyncio.gather(qmp.ask("query-jobs", tuple[Job, ...]), qemu.answer(many))
        few, _ = await asyncio.gather(
            qmp.ask("query-jobs", tuple[Job, ...]), qemu.answer(b'"return": [%s]' % job)
        )
        assert len(few) == 1

    run(story)


def test_one_that_does_not_read_is_given_up() -> None:
    async def story(qmp: QmpSession, qemu: Server) -> None:
        with pytest.raises(QmpLostError, match="did not answer"):
            await qmp.execute("x", {"much": "x" * (8 << 20)}, timeout_s=0.2)
        with pytest.raises(QmpLostError):
            await qmp.next_event()
        del qemu

    run(story)


def test_reading_takes_its_share_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood that never ends, for a while: the event loop is free for others."""
    monkeypatch.setattr(link, "_BURST_S", 0.02)

    async def story(qmp: QmpSession, qemu: Server) -> None:
        many = b"".join(event(f"X{n}", b'{"a": %d}' % n, n) for n in range(1_000))

        async def flood() -> None:
            while True:
                await qemu.say(many)

        flooding = asyncio.ensure_future(flood())
        await asyncio.sleep(0.3)
        before = time.thread_time()
        await asyncio.sleep(1.0)
        used = time.thread_time() - before
        flooding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flooding
        del qmp
        assert used < 0.3, "of one second; the flood itself included"

    run(story)


def test_a_budget_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = Budget(rate=0.1, burst_s=1.0)
    budget.pay(0.4)
    assert (budget.wait_s, budget.is_half_used) == (0, False)
    budget.pay(1.0)
    assert budget.wait_s == pytest.approx(4.0)
    assert budget.is_half_used
    now[0] += 4.0
    assert budget.wait_s == 0
    now[0] += 1_000.0
    budget.pay(1.0)
    assert budget.wait_s == pytest.approx(0.0, abs=1e-6)
