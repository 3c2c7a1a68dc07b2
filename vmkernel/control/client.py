"""The client of the control socket, used by remote_api."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import msgspec

from vmkernel.control.requests import Request, SubscribeEvents
from vmkernel.control.wire import Call, Connection, Failure, Success, WireError
from vmkernel.model import ErrorCode, Event, MicaError

__all__ = ["ControlClient", "Stream"]

ReplyT = TypeVar("ReplyT")
_REPLIES = msgspec.msgpack.Decoder(Success | Failure)


class _StaleError(Exception):
    """The connection ended before the reply; `sent`: the request may have arrived."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Stream:
    """A connected stream socket that came with a reply; its holder closes it."""

    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()


_IDLE_CONNECTIONS = 16
"""So many are kept for the next requests; more are made and closed again if more come at once."""
_IDLE_S = 30.0
"""Half of what the server waits, so that a connection is never taken as it is being closed."""


class ControlClient:
    """Sends typed requests. A connection carries one after the other, and is kept for the next.

    Raises MicaError with the vmkernel's answer, or `unavailable` if the vmkernel can't be reached
    or closed the connection before it answered (the outcome is then unknown: ask again).
    """

    def __init__(self, path: Path, *, connect_timeout_s: float = 10.0) -> None:
        self._path = path
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[tuple[float, Connection]] = []

    def close(self) -> None:
        """Close the connections that no request has."""
        while self._idle:
            self._idle.pop()[1].close()

    async def call(
        self,
        request: Request[ReplyT],
        *,
        token: str | None = None,
        origin: str = "",
        timeout_s: float = 60.0,
        on_position: Callable[[str], None] | None = None,
        dry_run: bool = False,
    ) -> ReplyT:
        """The reply to a request that brings no stream.

        `on_position` is called with the id of the last event before what only reads was read. With
        `dry_run`, a change is checked and not made.
        """
        call = Call(request=request, token=token, origin=origin, dry_run=dry_run)
        connection, reply = await self._ask(call, timeout_s)
        self._keep(connection)
        if on_position is not None and isinstance(reply, Success) and reply.position:
            on_position(reply.position)
        return self._decode(request, reply)

    async def open(
        self,
        request: Request[ReplyT],
        *,
        token: str | None = None,
        origin: str = "",
        timeout_s: float = 60.0,
    ) -> tuple[ReplyT, Stream]:
        """The reply to a request that brings a stream, and the stream."""
        call = Call(request=request, token=token, origin=origin)
        connection, reply = await self._ask(call, timeout_s)
        try:
            value = self._decode(request, reply)
            return value, Stream(connection.take_fd())
        except WireError as error:
            raise _unavailable(error) from error
        finally:
            connection.close()

    @asynccontextmanager
    async def events(
        self,
        request: SubscribeEvents,
        *,
        token: str | None = None,
        origin: str = "",
        on_position: Callable[[str], None] | None = None,
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Subscribe; no event after the context is entered is missed."""
        connection = await self._connect()
        try:
            try:
                call = Call(request=request, token=token, origin=origin)
                first = await self._exchange(connection, call, 60.0)
            except _StaleError as error:
                raise _unavailable(error) from error
            if isinstance(first, Failure):
                raise MicaError.from_problem(first.problem)
            if on_position is not None:
                on_position(first.position)
            yield self._follow(connection)
        finally:
            connection.close()

    async def _follow(self, connection: Connection) -> AsyncIterator[Event]:
        while True:
            try:
                frame = await connection.receive()
            except WireError as error:
                raise _unavailable(error) from error
            if frame is None:
                return
            reply = _REPLIES.decode(frame)
            if isinstance(reply, Failure):
                raise MicaError.from_problem(reply.problem)
            yield msgspec.msgpack.decode(reply.value, type=Event)

    async def _ask(self, call: Call, timeout_s: float) -> tuple[Connection, Success | Failure]:
        """The reply, and the connection that it came by, which the caller keeps or closes.

        A kept connection may turn out to be closed: the request goes out again on a new one if
        it changes nothing, or if it never left.
        """
        kept = self._take()
        if kept is not None:
            try:
                return kept, await self._exchange(kept, call, timeout_s)
            except _StaleError as error:
                kept.close()
                if error.sent and not type(call.request).READ_ONLY:
                    raise _unavailable(error) from error
            except BaseException:
                kept.close()
                raise
        connection = await self._connect()
        try:
            reply = await self._exchange(connection, call, timeout_s)
        except _StaleError as error:
            connection.close()
            raise _unavailable(error) from error
        except BaseException:
            connection.close()
            raise
        return connection, reply

    def _take(self) -> Connection | None:
        """The connection that was used last, if it is still good."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, connection = self._idle.pop()
            if now - since < _IDLE_S and connection.is_quiet():
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        now = asyncio.get_running_loop().time()
        self._idle.append((now, connection))
        while len(self._idle) > _IDLE_CONNECTIONS or now - self._idle[0][0] >= _IDLE_S:
            self._idle.pop(0)[1].close()

    async def _connect(self) -> Connection:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await asyncio.get_running_loop().sock_connect(sock, str(self._path))
        except (OSError, TimeoutError) as error:
            sock.close()
            raise _unavailable(error) from error
        return Connection(sock)

    async def _exchange(
        self, connection: Connection, call: Call, timeout_s: float
    ) -> Success | Failure:
        sent = False
        try:
            async with asyncio.timeout(timeout_s):
                await connection.send(call)
                sent = True
                frame = await connection.receive()
        except TimeoutError as error:
            raise MicaError(
                ErrorCode.TIMED_OUT,
                f"The vmkernel did not answer within {timeout_s:g} s; ask again.",
            ) from error
        except WireError as error:
            raise _StaleError(str(error), sent=sent) from error
        if frame is None:
            raise _StaleError("the vmkernel closed without an answer", sent=True)
        reply: Success | Failure = _REPLIES.decode(frame)
        return reply

    @staticmethod
    def _decode(request: Request[ReplyT], reply: Success | Failure) -> ReplyT:
        if isinstance(reply, Failure):
            raise MicaError.from_problem(reply.problem)
        return cast(ReplyT, msgspec.msgpack.decode(reply.value, type=type(request).REPLY))


def _unavailable(error: BaseException) -> MicaError:
    return MicaError(
        ErrorCode.UNAVAILABLE,
        f"The vmkernel can't be reached now ({error}); ask again in a moment.",
        retry_after_s=1,
    )
