"""However a WebSocket ends, and whatever comes at that moment, nobody sees a traceback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_api.server.connection import Connections
from remote_api.server.http11 import HttpConnection
from remote_api.server.websocket import (
    HELD_S,
    PING_INTERVAL_S,
    PONG_TIMEOUT_S,
    WebSocketConnection,
)
from tests.framework.fake_transport import FakeTransport, admitted
from tests.framework.own_time import own_time, quiet
from tests.framework.running import on_loop

GET = (
    b"GET /v1/vms/web/console HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASKED = b"\x80\x00\x00\x00\x00"
CLOSE, CLOSE_1000 = b"\x88" + MASKED, b"\x88\x82\x00\x00\x00\x00\x03\xe8"
DATA, PING, PONG = b"\x82\x81\x00\x00\x00\x00x", b"\x89" + MASKED, b"\x8a" + MASKED
UNMASKED, RESERVED = b"\x82\x01x", b"\xf2" + MASKED
HELD = 0.5


@pytest.fixture(autouse=True)
def time_of_its_own() -> Iterator[None]:
    """Whether anything more comes is known, not waited for."""
    with own_time():
        yield


class Transport(FakeTransport):
    """What came of it counts close frames too."""

    @property
    def close_frames(self) -> int:
        """So many were sent to the client."""
        frames = self.written.partition(b"\r\n\r\n")[2] if b" 101 " in self.written else b""
        count = 0
        while frames:
            count += frames[0] == 0x88
            frames = frames[2 + (frames[1] & 0x7F) :]
        return count


class World:
    """One connection, and an application that does as it is told."""

    def __init__(self) -> None:
        self.connections = Connections(self._application)
        self.failures: list[BaseException] = []
        self.orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        peer = admitted()
        self.transport = Transport()
        self.transport.protocol = HttpConnection(self.connections, peer)
        self.protocol.connection_made(self.transport)
        self._lost = False

    @property
    def protocol(self) -> Any:
        """HTTP's, and the WebSocket's after the upgrade."""
        return self.transport.protocol

    async def _application(self, _: Any, __: Any, send: Any) -> None:
        while (order := await self.orders.get()) is not None:
            try:
                await send(order)
            except OSError:
                return
            except BaseException as error:
                self.failures.append(error)
                raise

    def lose(self) -> None:
        if not self._lost:
            self._lost = True
            self.transport.close()
            self.protocol.connection_lost(None)

    def comes(self, data: bytes) -> None:
        if not self._lost:
            self.protocol.data_received(data)

    def give_up(self) -> None:
        if isinstance(self.protocol, WebSocketConnection) and not self._lost:
            self.protocol.give_up()

    async def end(self) -> None:
        self.lose()
        self.orders.put_nowait(None)
        await quiet()
        assert not self.connections.under_way
        assert not self.connections.open
        assert not self.failures


ACCEPT = {"type": "websocket.accept"}
STEPS: dict[str, Callable[[World], object]] = {
    "asks": lambda w: w.comes(GET),
    "data": lambda w: w.comes(DATA),
    "ping": lambda w: w.comes(PING),
    "pong": lambda w: w.comes(PONG),
    "client closes": lambda w: w.comes(CLOSE),
    "client closes by 1000": lambda w: w.comes(CLOSE_1000),
    "client sends without a mask": lambda w: w.comes(UNMASKED),
    "client breaks the protocol": lambda w: w.comes(RESERVED),
    "accept": lambda w: w.orders.put_nowait(ACCEPT),
    "send": lambda w: w.orders.put_nowait({"type": "websocket.send", "bytes": b"x"}),
    "close": lambda w: w.orders.put_nowait({"type": "websocket.close", "code": 1000}),
    "shutdown": lambda w: w.protocol.shutdown(),
    "keepalive": lambda w: w.give_up(),
    "lost": lambda w: w.lose(),
}
ENDS = [name for name in STEPS if name not in ("asks", "accept")]


def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in said] == []


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("first", ENDS)
@on_loop
async def test_two_ends_meet(first: str, second: str, caplog: pytest.LogCaptureFixture) -> None:
    """With both of them at once, or one after the other; then the server ends."""
    for together in (True, False):
        world = World()
        for step in ("asks", "accept"):
            STEPS[step](world)
            await quiet()
        assert b" 101 " in world.transport.written
        STEPS[first](world)
        if not together:
            await quiet()
        STEPS[second](world)
        await quiet()
        world.protocol.shutdown()
        world.protocol.shutdown()
        assert world.transport.closed
        assert world.transport.close_frames <= 1
        STEPS["send"](world)
        await world.end()
        _quiet(caplog)


@pytest.mark.parametrize("steps", [(), ("asks",), ("asks", "accept")])
@on_loop
async def test_a_server_that_ends_says_so(
    steps: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    for step in steps:
        STEPS[step](world)
        await quiet()
    world.protocol.shutdown()
    assert world.transport.closed
    if steps[-1:] == ("accept",):
        assert world.transport.written.endswith(b"\x88\x02" + (1012).to_bytes(2, "big"))
    STEPS["accept"](world)
    STEPS["send"](world)
    await world.end()
    assert world.transport.written.count(b"HTTP/1.1") == bool(steps)
    _quiet(caplog)


@on_loop
async def test_a_refusal_is_not_cut_off_by_a_second_one(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    STEPS["asks"](world)
    world.orders.put_nowait({"type": "websocket.http.response.start", "status": 403, "headers": []})
    world.orders.put_nowait({"type": "websocket.http.response.body", "body": b"no"})
    await quiet()
    world.protocol.shutdown()
    await world.end()
    assert world.transport.written.count(b"HTTP/1.1 403") == 1
    assert world.transport.written.endswith(b"\r\n\r\nno")
    _quiet(caplog)


class Heard(logging.Handler):
    """Keeps errors."""

    def __init__(self, heard: list[logging.LogRecord]) -> None:
        super().__init__(logging.ERROR)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(record)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*STEPS]), st.booleans()), max_size=12))
def test_no_order_of_events_is_an_error(steps: list[tuple[str, bool]]) -> None:
    """Steps that come at once, or each after the one before has had its effect."""
    heard: list[logging.LogRecord] = []
    unhandled: list[dict[str, Any]] = []
    handler = Heard(heard)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: unhandled.append(told))
        world = World()
        accepted = False
        for name, pause in steps:
            # An application accepts once, and sends nothing before.
            if (name, accepted) in (("accept", True), ("send", False)):
                continue
            accepted |= name == "accept"
            STEPS[name](world)
            if pause:
                await quiet()
        world.protocol.shutdown()
        await world.end()

    logging.getLogger().addHandler(handler)
    try:
        asyncio.run(main())
    finally:
        logging.getLogger().removeHandler(handler)
    assert ([record.getMessage() for record in heard], unhandled) == ([], [])


async def _asleep(*, reads: bool, seconds: float) -> bytes:
    """What a client that answers no ping was sent within so many seconds, if it typed something
    that the application takes or doesn't."""
    world = World()
    world.comes(GET)
    world.orders.put_nowait(ACCEPT)
    await quiet()
    if reads:
        while not world.protocol._messages.empty():
            await world.protocol.receive()
    world.comes(DATA)
    if reads:
        await world.protocol.receive()
    await asyncio.sleep(seconds)
    sent = bytes(world.transport.written)
    await world.end()
    return sent


@on_loop
async def test_a_client_that_is_not_read_need_not_answer_pings() -> None:
    """A guest that takes no input for a while ends no console; a client that has gone does."""
    refused = b"keepalive ping timeout"
    assert refused not in await _asleep(reads=True, seconds=PING_INTERVAL_S + PONG_TIMEOUT_S - 1)
    assert refused in await _asleep(reads=True, seconds=PING_INTERVAL_S + PONG_TIMEOUT_S + 1)
    assert refused not in await _asleep(reads=False, seconds=HELD_S - 1)
    assert refused in await _asleep(reads=False, seconds=HELD_S + 1)
