"""The server of the control socket.

accept -> peer's uid allowed? -> call frame (10 s) -> authenticate -> authorise -> handler
                                   ^                                   |-> reply frame (+ stream)
                                   |__________ within 60 s ____________|
                                                                       |-> reply frames (events)

If a peer disconnects, requests that only read are cancelled. Those that change something are
completed: the peer doesn't know the outcome, but nothing is left half-done.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec

from vmkernel.auth import AccessService, Audit
from vmkernel.auth.caller import ANONYMOUS, Caller
from vmkernel.control.dispatch import Dispatcher, Streamed, request_name
from vmkernel.control.encode import encode_event, encode_reply
from vmkernel.control.requests import Request, SubscribeEvents
from vmkernel.control.subjects import subject_of
from vmkernel.control.wire import MAX_CALL_BYTES, Call, Connection, Failure, Success, WireError
from vmkernel.errors import to_problem
from vmkernel.events import EventBus, Subscription, make_filter
from vmkernel.model import ErrorCode, ErrorInfo, MicaError
from vmkernel.operations.places import Places

__all__ = ["ControlServer", "bind_socket"]

_log = logging.getLogger(__name__)
_CALLS = msgspec.msgpack.Decoder(Call)
_MAX_CONNECTIONS = 512
"""More than the API's own limit of connections: each of those sends one request at a time."""
_LONG_CALLS = 4
"""How many long calls are kept in memory at once, each of up to MAX_CALL_BYTES."""
_REQUESTS_EACH = 128
_SUBSCRIBERS = 128
_SUBSCRIBERS_EACH = 32
_CALL_TIMEOUT_S = 10.0
_IDLE_S = 60.0
"""How long a peer may wait with its next request; then the connection ends."""
_SEND_TIMEOUT_S = 30.0
_RECHECK_S = 30.0
_UCRED = struct.Struct("3i")
_EMPTY = msgspec.Raw(msgspec.msgpack.encode(None))
_REFUSALS = {ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED}


def bind_socket(path: Path) -> socket.socket:
    """A listening Unix socket that only its owner can connect to; a stale one is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            if _answers(path):
                raise OSError(errno.EADDRINUSE, "another vmkernel answers there", str(path))
            path.unlink()
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


class ControlServer:
    def __init__(
        self,
        dispatcher: Dispatcher,
        access: AccessService,
        bus: EventBus,
        *,
        allowed_uids: Collection[int],
        audit: Audit | None = None,
        call_timeout_s: float = _CALL_TIMEOUT_S,
        recheck_s: float = _RECHECK_S,
    ) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._bus = bus
        self._audit = audit or Audit(bus)
        self._allowed_uids = frozenset(allowed_uids)
        self._call_timeout_s = call_timeout_s
        self._recheck_s = recheck_s
        self._long_calls = asyncio.Semaphore(_LONG_CALLS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[None]] = set()
        """Those that wait for the next request of their peer."""
        self._requests = Places(
            "requests are under way", total=_MAX_CONNECTIONS, each=_REQUESTS_EACH
        )
        self._subscribers = Places(
            "streams of events are open", total=_SUBSCRIBERS, each=_SUBSCRIBERS_EACH
        )

    async def serve(self, listener: socket.socket) -> None:
        """Accept and answer until cancelled; running requests then get a moment to finish."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    sock, _ = await loop.sock_accept(listener)
                except OSError as error:
                    _log.error("accept failed: %s", error)
                    await asyncio.sleep(0.1)
                    continue
                task = asyncio.create_task(self._connection(sock))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            await self._drain()

    async def _drain(self) -> None:
        for task in self._idle:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, sock: socket.socket) -> None:
        connection = Connection(sock, takes_stream=False)
        try:
            uid = _peer_uid(sock)
            if uid not in self._allowed_uids:
                self._audit.denied(
                    "connect",
                    actor=f"uid {uid}",
                    origin="control socket",
                    code=ErrorCode.FORBIDDEN,
                    reason=f"Uid {uid} may not use the control socket.",
                )
                return
            if len(self._tasks) > _MAX_CONNECTIONS:
                await self._fail(
                    connection,
                    ErrorInfo(
                        code=ErrorCode.UNAVAILABLE,
                        detail="The vmkernel has too many requests under way; ask again shortly.",
                        retry_after_s=1,
                    ),
                )
                return
            while await self._exchange(connection) and await self._comes_again(connection):
                pass
        except WireError as error:
            _log.debug("control connection: %s", error)
        except Exception:
            _log.exception("a control connection failed")
        finally:
            connection.close()

    async def _comes_again(self, connection: Connection) -> bool:
        """Wait for the next request; False if none comes."""
        task = asyncio.current_task()
        assert task is not None
        self._idle.add(task)
        try:
            async with asyncio.timeout(_IDLE_S):
                return await connection.comes_again()
        except TimeoutError:
            return False
        finally:
            self._idle.discard(task)

    async def _exchange(self, connection: Connection) -> bool:
        """Serve one request; True if another may follow."""
        try:
            async with asyncio.timeout(self._call_timeout_s):
                frame = await connection.receive(limit=MAX_CALL_BYTES, long_ones=self._long_calls)
        except TimeoutError:
            await self._fail(
                connection,
                ErrorInfo(code=ErrorCode.TIMED_OUT, detail="The request did not arrive in time."),
            )
            return False
        if frame is None:
            return False
        try:
            call = _CALLS.decode(frame)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            await self._fail(connection, _decoding_problem(error))
            return False
        with contextlib.ExitStack() as stack:
            await self._carry_out(connection, call, stack)
        return not isinstance(call.request, SubscribeEvents)

    async def _carry_out(
        self, connection: Connection, call: Call, stack: contextlib.ExitStack
    ) -> None:
        """One call; its actor occupies a place until the peer has the reply."""
        request: Request[Any] = call.request
        try:
            caller = self._admit(call)
            actor = caller.actor if caller.actor != ANONYMOUS else f"{ANONYMOUS} {call.origin}"
            stack.callback(self._requests.take(actor))
            if isinstance(request, SubscribeEvents):
                stack.callback(self._subscribers.take(actor))
                await self._stream_events(connection, request, call, caller)
                return
            # Taken before anything is read, so that no change after that is missed.
            position = self._bus.position if type(request).READ_ONLY and caller.role else ""
            reply = await self._answer(connection, request, caller, call.dry_run)
        except MicaError as error:
            await self._fail(connection, error.problem)
            return
        except WireError:
            raise
        except Exception as error:
            await self._fail(connection, to_problem(error, f"request {request_name(request)}"))
            return
        await self._reply(connection, request, reply, position)

    def _admit(self, call: Call) -> Caller:
        """Authenticate and authorise; every refusal is audited."""
        needed = type(call.request).ROLE
        actor = ANONYMOUS
        try:
            if needed is None:
                return self._access.anonymous(call.origin)
            caller = self._access.authenticate(call.token, call.origin)
            actor = caller.actor
            self._access.authorise(caller, needed)
        except MicaError as error:
            self._refused(call.request, actor, call.origin, error)
            raise
        return caller

    async def _answer(
        self, connection: Connection, request: Request[Any], caller: Caller, dry_run: bool
    ) -> object:
        """Run the handler; if the peer disconnects, it is cancelled unless it changes something."""
        work = asyncio.ensure_future(self._handle(request, caller, dry_run))
        only_reads = type(request).READ_ONLY
        gone = asyncio.ensure_future(connection.closed())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and only_reads:
                raise WireError("the peer went away before it was answered")
            return await asyncio.shield(work)
        except BaseException:
            if not work.done() and only_reads:
                work.cancel()
            raise
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            if not work.done():
                await asyncio.gather(work, return_exceptions=True)

    async def _handle(self, request: Request[Any], caller: Caller, dry_run: bool) -> object:
        try:
            reply = await self._dispatcher.handle(request, caller, dry_run=dry_run)
        except MicaError as error:
            if error.problem.code in _REFUSALS:
                self._refused(request, caller.actor, caller.origin, error)
            raise
        kind = type(request)
        if kind.DISCLOSES or not (kind.READ_ONLY or dry_run):
            self._audit.done(
                "audit.read" if kind.READ_ONLY else "audit.changed",
                request_name(request),
                subject_of(request),
                actor=caller.actor,
                origin=caller.origin,
                in_parts=kind.IN_PARTS or kind.DISCLOSES,
            )
        return reply

    async def _reply(
        self, connection: Connection, request: Request[Any], reply: object, position: str
    ) -> None:
        stream = reply.stream if isinstance(reply, Streamed) else None
        try:
            try:
                value = encode_reply(reply.value if isinstance(reply, Streamed) else reply)
            except Exception as error:
                where = f"the answer to {request_name(request)}"
                await self._fail(connection, to_problem(error, where))
                return
            success = Success(value=value, stream=stream is not None, position=position)
            try:
                async with asyncio.timeout(_SEND_TIMEOUT_S):
                    await connection.send(success, fd=None if stream is None else stream.fileno())
            except TimeoutError as error:
                raise WireError("the peer does not read") from error
        finally:
            if stream is not None:
                stream.close()

    async def _stream_events(
        self,
        connection: Connection,
        request: SubscribeEvents,
        call: Call,
        caller: Caller,
    ) -> None:
        """Send events as long as the subscriber's token is valid."""

        def still_allowed() -> bool:
            try:
                self._access.authenticate(call.token, call.origin)
            except MicaError:
                return False
            return True

        wanted = make_filter(request.types, request.subjects, request.labels)
        with self._bus.subscribe(
            request.after, wanted, role=caller.role, gapless=request.gapless
        ) as subscription:
            await connection.send(Success(value=_EMPTY, position=self._bus.position))
            gone = asyncio.ensure_future(connection.closed())
            sender = asyncio.ensure_future(
                _send_events(connection, subscription, still_allowed, self._recheck_s)
            )
            try:
                await asyncio.wait((gone, sender), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (gone, sender):
                    task.cancel()
                await asyncio.gather(gone, sender, return_exceptions=True)

    async def _fail(self, connection: Connection, problem: ErrorInfo) -> None:
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await connection.send(Failure(problem=problem))
        except TimeoutError as error:
            raise WireError("the peer does not read") from error

    def _refused(self, request: Request[Any], actor: str, origin: str, error: MicaError) -> None:
        self._audit.denied(
            request_name(request),
            actor=actor,
            origin=origin,
            code=error.problem.code,
            reason=error.problem.detail,
            subject=subject_of(request),
        )


async def _send_events(
    connection: Connection,
    subscription: Subscription,
    still_allowed: Callable[[], bool],
    recheck_s: float,
) -> None:
    while True:
        try:
            async with asyncio.timeout(recheck_s):
                event = await subscription.next_with_object()
        except TimeoutError:
            if not still_allowed():
                return
            continue
        if event is None or not still_allowed():
            return
        value = encode_event(event)
        if value is not None:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await connection.send(Success(value=value))


def _peer_uid(sock: socket.socket) -> int:
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(data)[1]
    return uid


_PATH = re.compile(r" - at `\$((?:[^`]|`(?!$))*)`$")


def _decoding_problem(error: Exception) -> ErrorInfo:
    """A request of the wrong form, as `invalid` with a pointer to the field."""
    text = str(error)
    match = _PATH.search(text)
    if match is None:
        return ErrorInfo(code=ErrorCode.INVALID, detail=f"The request can't be read: {text}.")
    pointer = re.sub(r"\[(\d+|\.\.\.)\]", r".\1", match[1]).replace(".", "/")
    detail = text[: match.start()]
    return MicaError.field(pointer.removeprefix("/request"), f"{detail}.").problem
