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


class Stream:
    """A connected stream socket that came with a reply; its holder closes it."""

    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()


class ControlClient:
    """Sends typed requests, one per connection.

    Raises MicaError with the vmkernel's answer, or `unavailable` if the vmkernel can't be reached
    or closed the connection before it answered (the outcome is then unknown: ask again).
    """

    def __init__(self, path: Path, *, connect_timeout_s: float = 10.0) -> None:
        self._path = path
        self._connect_timeout_s = connect_timeout_s

    async def call(
        self,
        request: Request[ReplyT],
        *,
        token: str | None = None,
        origin: str = "",
        timeout_s: float = 60.0,
        on_position: Callable[[str], None] | None = None,
    ) -> ReplyT:
        """The reply to a request that brings no stream.

        `on_position` is called with the id of the last event before what only reads was read.
        """
        connection = await self._connect()
        try:
            reply = await self._exchange(connection, request, token, origin, timeout_s)
            if on_position is not None and isinstance(reply, Success) and reply.position:
                on_position(reply.position)
            return self._decode(request, reply)
        finally:
            connection.close()

    async def open(
        self,
        request: Request[ReplyT],
        *,
        token: str | None = None,
        origin: str = "",
        timeout_s: float = 60.0,
    ) -> tuple[ReplyT, Stream]:
        """The reply to a request that brings a stream, and the stream."""
        connection = await self._connect()
        try:
            reply = await self._exchange(connection, request, token, origin, timeout_s)
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
            first = await self._exchange(connection, request, token, origin, 60.0)
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
        self,
        connection: Connection,
        request: Request[ReplyT],
        token: str | None,
        origin: str,
        timeout_s: float,
    ) -> Success | Failure:
        call = Call(request=request, token=token, origin=origin)
        try:
            async with asyncio.timeout(timeout_s):
                await connection.send(call)
                frame = await connection.receive()
        except TimeoutError as error:
            raise MicaError(
                ErrorCode.TIMED_OUT,
                f"The vmkernel did not answer within {timeout_s:g} s; ask again.",
            ) from error
        except WireError as error:
            raise _unavailable(error) from error
        if frame is None:
            raise _unavailable(WireError("the vmkernel closed without an answer"))
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
