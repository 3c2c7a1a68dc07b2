"""The HTTP/1.1 connection: what it takes, what it refuses, and what it holds for a client."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any

import h11
import pytest

from remote_api.http.application import MAX_HEAD_BYTES
from remote_api.server.connection import STALL_S, Connections
from remote_api.server.http11 import (
    HEAD_TIMEOUT_S,
    KEEP_ALIVE_S,
    READ_AHEAD_BYTES,
    HttpConnection,
)
from tests.framework.fake_transport import FakeTransport, admitted
from tests.framework.own_time import own_time, quiet
from tests.framework.running import on_loop

GOOD = b"GET /v1?a=b HTTP/1.1\r\nHost: a\r\nX-Y: b c\r\n\r\n"
Answering = Callable[["World", Any], Awaitable[None]]


@pytest.fixture(autouse=True)
def time_of_its_own() -> Iterator[None]:
    """No time limit is waited for."""
    with own_time():
        yield


class World:
    """One connection, and an application that notes what it is asked."""

    def __init__(self, answer: Answering | None = None) -> None:
        self.connections = Connections(self._application)
        self.peer = admitted()
        self.transport = FakeTransport()
        self.transport.protocol = HttpConnection(self.connections, self.peer)
        self.transport.protocol.connection_made(self.transport)
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self._answer = answer or World.take_all
        self._sending: Any = None

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self._sending = send
        await self._answer(self, receive)

    async def take_all(self, receive: Any) -> None:
        """Read the whole body, then answer."""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        await self.reply(b"ok")

    async def reply(self, body: bytes, status: int = 200) -> None:
        """A whole answer."""
        length = (b"content-length", str(len(body)).encode())
        await self._sending({"type": "http.response.start", "status": status, "headers": [length]})
        await self._sending({"type": "http.response.body", "body": body})

    async def comes(self, *parts: bytes) -> None:
        """Bytes of the client, part by part."""
        for part in parts:
            if not self.transport.closed:
                self.transport.protocol.data_received(part)
            await self.settle()

    async def settle(self) -> None:
        await quiet()

    @property
    def answers(self) -> list[tuple[int, bytes]]:
        """What a client reads, by h11 as a client."""
        client = h11.Connection(h11.CLIENT)
        if self.transport.written:  # nothing would be the connection's end
            client.receive_data(self.transport.written)
        found: list[tuple[int, bytes]] = []
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                found.append((event.status_code, b""))
            elif isinstance(event, h11.Data):
                found[-1] = (found[-1][0], found[-1][1] + bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                if client.our_state is not h11.DONE or client.their_state is not h11.DONE:
                    return found
                client.start_next_cycle()
                client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
                client.send(h11.EndOfMessage())
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return found

    def lose(self) -> None:
        self.transport.close()
        self.transport.protocol.connection_lost(None)


def _cut(data: bytes, size: int) -> list[bytes]:
    cuts = [*range(0, len(data), size), len(data)]
    return [data[start:stop] for start, stop in pairwise(cuts) if start < stop]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@on_loop
async def test_a_head_that_is_in_order_is_taken_however_it_comes(size: int) -> None:
    world = World()
    await world.comes(*_cut(GOOD, size))
    assert world.answers == [(200, b"ok")]
    (scope,) = world.scopes
    assert (scope["method"], scope["path"], scope["query_string"]) == ("GET", "/v1", b"a=b")
    assert scope["headers"] == [(b"host", b"a"), (b"x-y", b"b c")]
    assert scope["state"]["peer"] is world.peer


SPOILED: list[Callable[[bytes], bytes]] = [
    lambda head: head.replace(b"\r\n", b"\n"),
    lambda head: head.replace(b"\r\n", b"\n", 1),
    lambda head: head.replace(b"a\r\nX", b"a\nX"),
    lambda head: head.replace(b"b c", b"b\r\n c"),
    lambda head: head.replace(b"b c", b"b\r\n\tc"),
    lambda head: head.replace(b"b c", b"b\rc"),
    lambda head: head[:-2] + b"\n",
    lambda head: b"\n" + head,
    lambda head: head.replace(b"HTTP/1.1", b"HTTP/9"),
    lambda head: head.replace(b"Host: a\r\n", b""),
    lambda _: b"\x16\x03\x01 nonsense\r\n\r\n",
]


@pytest.mark.parametrize("spoil", SPOILED)
@pytest.mark.parametrize("size", [1, 5, 100])
@on_loop
async def test_a_head_that_programs_disagree_on_is_refused(
    spoil: Callable[[bytes], bytes], size: int
) -> None:
    world = World()
    await world.comes(*_cut(spoil(GOOD), size))
    ((status, body),) = world.answers
    assert (status, json.loads(body)["type"]) == (400, "/v1/problems/malformed")
    assert world.transport.closed
    assert not world.scopes
    assert world.peer.admission.counters["malformed"] == 1


@pytest.mark.parametrize("spoil", SPOILED[:8])
@pytest.mark.parametrize("size", [1, 7, 1000])
@on_loop
async def test_so_is_the_second_head_of_a_connection(
    spoil: Callable[[bytes], bytes], size: int
) -> None:
    world = World()
    await world.comes(*_cut(GOOD + spoil(GOOD), size))
    assert [status for status, _ in world.answers] == [200, 400]
    assert len(world.scopes) == 1


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n"


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\nX-Sum: 1\r\n\r\n"])
@on_loop
async def test_a_body_in_chunks_is_taken(end: bytes, size: int) -> None:
    world = World()
    await world.comes(*_cut(CHUNKED + end + GOOD, size))
    assert world.bodies == [b"abcde", b""]
    assert world.answers == [(200, b"ok")] * 2


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    "end",
    [
        *(b"0\r\n\n", b"0\r\nX: 1\n\r\n", b"0\r\nX: 1\r\n\n", b"0\r\nX: 1\r\n 2\r\n\r\n"),
        *(b"0\r\nX: 1\r2\r\n\r\n", b"0\n\r\n", b"4\r\nabcdXX0\r\n\r\n", b"zz\r\n\r\n"),
    ],
)
@on_loop
async def test_chunks_and_trailers_that_programs_disagree_on_are_refused(
    end: bytes, size: int
) -> None:
    world = World()
    await world.comes(*_cut(CHUNKED + end + GOOD, size))
    assert [status for status, _ in world.answers] == [400]
    assert world.bodies == []
    assert world.transport.closed


@on_loop
async def test_a_head_without_end_is_refused() -> None:
    world = World()
    line = b"X-A: " + b"a" * 1000 + b"\r\n"
    await world.comes(GOOD[:-2], *(line for _ in range(2 + MAX_HEAD_BYTES // len(line))))
    ((status, body),) = world.answers
    assert (status, json.loads(body)["type"]) == (431, "/v1/problems/head-too-large")
    assert world.transport.closed


@on_loop
async def test_requests_that_come_at_once_are_answered_one_by_one() -> None:
    world = World()
    await world.comes(GOOD * 3)
    assert world.answers == [(200, b"ok")] * 3
    assert not world.transport.closed
    assert world.transport.reading


@on_loop
async def test_the_next_request_waits_for_the_answer_before() -> None:
    go = asyncio.Event()

    async def later(world: World, _: Any) -> None:
        await go.wait()
        await world.reply(b"ok")

    world = World(later)
    await world.comes(GOOD, GOOD)
    assert (len(world.scopes), world.transport.reading) == (1, False)
    assert not world.peer.idle()
    go.set()
    await world.settle()
    assert world.answers == [(200, b"ok")] * 2
    assert world.peer.idle()


@pytest.mark.parametrize(
    "head",
    [
        GOOD.replace(b"X-Y: b c", b"Connection: close"),
        GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
@on_loop
async def test_the_last_answer_of_a_connection_says_so(head: bytes) -> None:
    world = World()
    await world.comes(head)
    assert b"\r\nconnection: close\r\n" in world.transport.written.lower()
    assert world.transport.closed


@on_loop
async def test_a_head_request_has_an_answer_without_a_body() -> None:
    world = World()
    await world.comes(GOOD.replace(b"GET", b"HEAD") + GOOD.replace(b"GET", b"HEAD"))
    written = world.transport.written
    assert written.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert written.endswith(b"content-length: 2\r\n\r\n")


@on_loop
async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    world = World()
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    await world.comes(head)
    assert world.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    await world.comes(b"hi")
    assert world.bodies == [b"hi"]


@on_loop
async def test_a_body_is_not_taken_faster_than_it_is_read() -> None:
    go = asyncio.Event()

    async def late(world: World, receive: Any) -> None:
        await go.wait()
        await world.take_all(receive)

    world = World(late)
    size = READ_AHEAD_BYTES + 10
    await world.comes(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (2 * size))
    await world.comes(b"a" * size)
    assert not world.transport.reading
    go.set()
    await world.settle()
    assert world.transport.reading
    await world.comes(b"a" * size)
    assert world.bodies == [b"a" * 2 * size]


@on_loop
async def test_an_application_learns_that_the_client_has_gone() -> None:
    seen: list[str] = []

    async def waits(world: World, receive: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        seen.append(message["type"])
        await world.reply(b"nobody reads it")

    world = World(waits)
    await world.comes(GOOD)
    world.lose()
    await world.settle()
    assert seen == ["http.disconnect"]
    assert world.transport.written == b""
    assert not world.connections.under_way
    assert not world.connections.open


@pytest.mark.parametrize("begun", [False, True])
@on_loop
async def test_a_defect_closes_the_connection(
    begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(world: World, _: Any) -> None:
        if begun:
            await world._sending({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("a defect")

    world = World(fails)
    await world.comes(GOOD)
    assert world.transport.closed
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@on_loop
async def test_an_answer_waits_for_its_reader() -> None:
    world = World()
    world.transport.protocol.pause_writing()
    await world.comes(GOOD)
    assert world.transport.written == b""
    world.transport.protocol.resume_writing()
    await world.settle()
    assert world.answers == [(200, b"ok")]


@on_loop
async def test_a_client_that_takes_nothing_is_left() -> None:
    world = World()
    world.transport.protocol.pause_writing()
    await asyncio.sleep(STALL_S - 1)
    world.transport.protocol.resume_writing()
    world.transport.protocol.pause_writing()
    await asyncio.sleep(STALL_S - 1)
    assert not world.transport.aborted
    await asyncio.sleep(2)
    assert world.transport.aborted
    assert world.peer.admission.counters["stalled"] == 1


@on_loop
async def test_a_request_must_be_whole_in_time() -> None:
    first, second = World(), World()
    await first.comes(GOOD[:20])
    await second.comes(GOOD + GOOD[:20])
    await asyncio.sleep(HEAD_TIMEOUT_S - 1)
    assert not first.transport.closed
    await asyncio.sleep(2)
    assert [world.transport.closed for world in (first, second)] == [True, True]
    assert second.answers == [(200, b"ok")]
    assert first.peer.admission.counters["slow-head"] == 1


@on_loop
async def test_an_idle_connection_is_closed_after_a_while() -> None:
    world = World()
    await world.comes(GOOD)
    await asyncio.sleep(KEEP_ALIVE_S - 1)
    await world.comes(GOOD)
    await asyncio.sleep(KEEP_ALIVE_S - 1)
    assert not world.transport.closed
    await asyncio.sleep(2)
    assert world.transport.closed


@on_loop
async def test_the_end_waits_for_answers_and_cuts_off_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def slow(world: World, _: Any) -> None:
        await asyncio.sleep(0.05)
        await world.reply(b"late")

    async def never(_: World, __: Any) -> None:
        await asyncio.Event().wait()

    for answer, grace_s, answers in ((slow, 5.0, [(200, b"late")]), (never, 0.05, [])):
        world = World(answer)
        await world.comes(GOOD)
        async with asyncio.timeout(4):
            ending = asyncio.create_task(world.connections.end(grace_s))
            await world.transport.closed_event.wait()
            world.lose()
            await ending
        assert not world.connections.under_way
        assert world.answers == answers
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GET", b"POST"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"websocket", b"h2c"),
        (b"Connection: Upgrade", b"Connection: close"),
    ],
)
@on_loop
async def test_what_is_no_upgrade_is_answered_as_http(old: bytes, new: bytes) -> None:
    world = World()
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    await world.comes(head.replace(old, new))
    assert world.answers == [(200, b"ok")]
    assert world.scopes[0]["type"] == "http"
