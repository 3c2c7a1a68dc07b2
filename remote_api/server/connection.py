"""What the connections of the process share, whatever their protocol."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from remote_api.server.admission import Peer

__all__ = ["Clock", "Connection", "Connections", "Message", "STALL_S", "phrase_of"]

logger = logging.getLogger("mica.api")

STALL_S = 30.0
"""If a client accepts nothing for this long, the connection is dropped with its unsent data."""

Message = MutableMapping[str, Any]
Application = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[None],
]
"""An ASGI 3 application; it gets no lifespan messages."""


class Clock:
    """One time limit, which runs or doesn't."""

    def __init__(self, limit_s: float, over: Callable[[], object]) -> None:
        self._limit_s = limit_s
        self._over = over
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start it; one that runs continues."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._limit_s, self._end)

    def stop(self) -> None:
        """The limit was kept: stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def running(self) -> bool:
        return self._timer is not None

    def restart(self) -> None:
        """Let it run from now on."""
        self.stop()
        self.start()

    def _end(self) -> None:
        self._timer = None
        self._over()


class Connections:
    """Those that are open, the requests under way, and the application that answers them."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._date = (0, b"")

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Answer a request; the task is awaited by `end`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    @property
    def under_way(self) -> int:
        """How many requests and WebSockets are being answered."""
        return len(self._tasks)

    @property
    def date(self) -> bytes:
        """The Date header of an answer that begins now."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True).encode("ascii"))
        return self._date[1]

    def shutdown(self) -> None:
        """Ask each to end when its present work is done."""
        for connection in list(self.open):
            connection.shutdown()

    async def end(self, grace_s: float) -> None:
        """End all: work in progress gets this long, then it is cancelled."""
        self.shutdown()
        try:
            async with asyncio.timeout(grace_s):
                while self.open or self._tasks:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            logger.error("%d requests were not answered within %g s", len(self._tasks), grace_s)
        for connection in list(self.open):
            connection.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def left(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self.open.discard(connection)
        self._ended.set()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._ended.set()


class Connection(asyncio.Protocol, ABC):
    """A connection's place among all, and the flow of its bytes."""

    transport: asyncio.Transport

    def __init__(self, connections: Connections, peer: Peer) -> None:
        self.connections = connections
        self.peer = peer
        self.writable = asyncio.Event()
        """Whether the client has accepted enough to send more."""
        self.writable.set()
        self._reading = True
        self._stall_clock = Clock(STALL_S, self._stalled)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connections.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """Leave the place to others."""
        self._leave()
        self.writable.set()
        self.peer.admission.gone(self.peer)

    @abstractmethod
    def shutdown(self) -> None:
        """End when the present work is done."""

    def pause_writing(self) -> None:
        """The client takes nothing: it gets a while."""
        self.writable.clear()
        self._stall_clock.start()

    def resume_writing(self) -> None:
        """The client has accepted data."""
        self._stall_clock.stop()
        self.writable.set()

    def pause_reading(self) -> None:
        """Read no more from the client until the received data are used."""
        if self._reading:
            self._reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Continue reading."""
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()

    @property
    def closing(self) -> bool:
        """Whether nothing is sent or taken any more."""
        return self.transport.is_closing()

    def scope(self, kind: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> Message:
        """What an ASGI application learns of a request of either protocol."""
        raw_path, _, query = target.partition(b"?")
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "https",
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "root_path": "",
            "query_string": query,
            "headers": headers,
            "client": self.transport.get_extra_info("peername"),
            "server": self.transport.get_extra_info("sockname"),
            "state": {"peer": self.peer},
        }

    def _leave(self) -> None:
        """It is no connection of this protocol any more."""
        self._stall_clock.stop()
        self.connections.left(self)

    def _stalled(self) -> None:
        self.peer.admission.counters["stalled"] += 1
        self.transport.abort()


def phrase_of(status: int) -> str:
    """What an HTTP status is called; empty for one that isn't registered."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
