"""A vmkernel for tests of the API: the real control protocol on a real socket, set answers.

`answer(GetVm, vm)` sets what a request type gets: a value, an exception, or a function of the
request (a coroutine function too) that returns a value or `Streamed(value, socket)`. An unexpected
request is answered by `internal`, which no test takes for a success.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vmkernel import model
from vmkernel.control import ControlClient
from vmkernel.control.requests import Request, SubscribeEvents, WhoAmI
from vmkernel.control.wire import Call, Connection, Failure, Success, WireError

__all__ = ["FakeVmkernel", "Streamed", "TOKENS", "fake_vmkernel"]

TOKENS = {
    "mica_root_secret": model.Role.ADMIN,
    "mica_op_secret": model.Role.OPERATOR,
    "mica_eye_secret": model.Role.VIEWER,
}
"""The tokens that it knows."""
_RANKS = (model.Role.VIEWER, model.Role.OPERATOR, model.Role.ADMIN)
_EMPTY = msgspec.Raw(msgspec.msgpack.encode(None))


@dataclass(frozen=True)
class Streamed:
    """An answer that brings a stream."""

    value: object
    stream: socket.socket


class FakeVmkernel:
    """Requests are recorded in `calls`."""

    def __init__(self, path: Path) -> None:
        self.client = ControlClient(path, connect_timeout_s=2.0)
        self.path = path
        self.calls: list[Call] = []
        self.events: list[model.Event] = []
        self.position = "01a208ac3fc4-000000000001"
        """The id of the last event, that comes with each answer."""
        self.events_end = asyncio.Event()
        self.default: Exception | None = None
        """The answer to requests without a set answer, instead of `internal`."""
        self._answers: dict[type[Request[Any]], Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, kind: type[Request[Any]], answer: Any) -> None:
        """Set the answer of a request type."""
        self._answers[kind] = answer

    def asked(self, kind: type[Request[Any]]) -> list[Any]:
        """The requests of a type that came."""
        return [call.request for call in self.calls if isinstance(call.request, kind)]

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                sock, _ = await loop.sock_accept(listener)
                task = asyncio.create_task(self._connection(Connection(sock)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, connection: Connection) -> None:
        try:
            while await self._exchange(connection):
                pass
        except WireError:
            pass
        finally:
            connection.close()

    async def _exchange(self, connection: Connection) -> bool:
        """Serve one request; False if no other follows."""
        frame = await connection.receive()
        if frame is None:
            return False
        call = msgspec.msgpack.decode(frame, type=Call)
        self.calls.append(call)
        try:
            token = _admit(call)
            if isinstance(call.request, SubscribeEvents) and SubscribeEvents not in self._answers:
                await self._stream_events(connection)
                return False
            reply = await self._reply(call, token)
        except model.MicaError as error:
            await connection.send(Failure(problem=error.problem))
            return True
        stream = reply.stream if isinstance(reply, Streamed) else None
        value = reply.value if isinstance(reply, Streamed) else reply
        raw = msgspec.Raw(msgspec.msgpack.encode(value))
        await connection.send(
            Success(value=raw, stream=stream is not None, position=self.position),
            fd=None if stream is None else stream.fileno(),
        )
        if stream is not None:
            stream.close()
        return True

    async def _reply(self, call: Call, token: model.Token | None) -> Any:
        request = call.request
        if isinstance(request, WhoAmI) and WhoAmI not in self._answers:
            return token
        nobody = model.MicaError(model.ErrorCode.INTERNAL, f"nobody expected {request!r}")
        answer = self._answers.get(type(request), self.default or nobody)
        if callable(answer):
            answer = answer(request)
            if inspect.isawaitable(answer):
                answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _stream_events(self, connection: Connection) -> None:
        await connection.send(Success(value=_EMPTY, position=self.position))
        for event in self.events:
            raw = msgspec.Raw(msgspec.msgpack.encode(event))
            await connection.send(Success(value=raw))
        await self.events_end.wait()


@asynccontextmanager
async def fake_vmkernel(folder: Path) -> AsyncIterator[FakeVmkernel]:
    """A running fake on a socket in `folder`."""
    path = folder / "control.sock"
    fake = FakeVmkernel(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    listener.bind(str(path))
    listener.listen(64)
    task = asyncio.create_task(fake.serve(listener))
    try:
        yield fake
    finally:
        fake.client.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listener.close()


def _admit(call: Call) -> model.Token | None:
    needed = type(call.request).ROLE
    role = TOKENS.get(call.token or "")
    if needed is None:
        return None
    if role is None:
        raise model.MicaError(model.ErrorCode.UNAUTHENTICATED, "The token is not known.")
    if _RANKS.index(role) < _RANKS.index(needed):
        raise model.MicaError(model.ErrorCode.FORBIDDEN, f"A {role} may not do this.")
    return model.Token(
        id=(call.token or "").split("_")[1],
        created_at="2026-01-01T00:00:00Z",
        spec=model.TokenSpec(role=role),
    )
