"""The frames on the control socket: a length, then msgpack; a frame may carry one descriptor.

connection = (call-frame, reply-frame)*         one request after the other
             [call-frame, reply-frame*]         (event.subscribe: until the peer closes)
frame      = length (4 octets, big endian), msgpack map of that many octets
"""

from __future__ import annotations

import array
import asyncio
import socket
from typing import Any

import msgspec

from vmkernel.control.requests import AnyRequest
from vmkernel.model import ErrorInfo

__all__ = [
    "Call",
    "Connection",
    "Failure",
    "MAX_CALL_BYTES",
    "MAX_FRAME_BYTES",
    "Success",
    "WireError",
]

MAX_FRAME_BYTES = 16 << 20
MAX_CALL_BYTES = 12 << 20
"""The largest body, a saved VM, is 10 MiB; its msgpack is no larger."""
_SMALL_BYTES = 64 << 10
"""Calls up to this size are read at once; only a few longer ones at a time."""
_LARGE_BYTES = 256 << 10
"""At once of a long frame: more than the kernel keeps of a Unix socket."""
_LENGTH_BYTES = 4


class WireError(Exception):
    """The peer broke the framing or disconnected; the outcome of a request is unknown."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    request: AnyRequest
    token: str | None = None
    """The bearer token as the client sent it."""
    origin: str = ""
    """The client's address, for the audit trail."""
    dry_run: bool = False
    """Check the request and say what it would answer; change nothing."""

    def __repr__(self) -> str:
        """Without the token."""
        return f"Call({self.request!r}, origin={self.origin!r})"


class Success(msgspec.Struct, frozen=True, kw_only=True, tag="ok"):
    """A reply; `value` is encoded by the request's `REPLY` type."""

    value: msgspec.Raw
    stream: bool = False
    """True if this frame carries a descriptor."""
    position: str = ""
    """Of what only reads: the id of the last event before it was read."""


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    problem: ErrorInfo


class Connection:
    """One end of a control connection on a connected, non-blocking Unix stream socket."""

    def __init__(self, sock: socket.socket, *, takes_stream: bool = True) -> None:
        """`takes_stream` is for clients only. A server accepts no descriptors: without a buffer for
        them the kernel discards them, so that peers can't exhaust the server's own.
        """
        sock.setblocking(False)
        self._takes_stream = takes_stream
        self._sock = sock
        self._buffer = bytearray()
        self._fds: list[int] = []

    def close(self) -> None:
        """Close the socket and every received descriptor that was not taken."""
        for fd in self._fds:
            socket.close(fd)
        self._fds.clear()
        self._sock.close()

    async def send(self, message: Any, *, fd: int | None = None) -> None:
        """Send one frame; `fd` is duplicated into the peer and stays open here."""
        payload = msgspec.msgpack.encode(message)
        if len(payload) > MAX_FRAME_BYTES:
            raise WireError(f"a frame of {len(payload)} bytes is over the limit")
        data = memoryview(len(payload).to_bytes(_LENGTH_BYTES, "big") + payload)
        if fd is not None:
            data = data[await self._send_with_fd(data, fd) :]
        try:
            await asyncio.get_running_loop().sock_sendall(self._sock, data)
        except OSError as error:
            raise WireError(f"the peer went away: {error}") from error

    async def receive(
        self, *, limit: int = MAX_FRAME_BYTES, long_ones: asyncio.Semaphore | None = None
    ) -> bytes | None:
        """The payload of the next frame; None if the peer closed between two frames. A long frame
        is read only while `long_ones` is held.
        """
        header = await self._read(_LENGTH_BYTES, eof_ok=True)
        if header is None:
            return None
        length = int.from_bytes(header, "big")
        if length > limit:
            raise WireError(f"a frame of {length} bytes is over the limit")
        if long_ones is None or length <= _SMALL_BYTES:
            return await self._read(length, eof_ok=False)
        async with long_ones:
            return await self._read(length, eof_ok=False)

    def take_fd(self) -> int:
        """The oldest received descriptor; the caller owns it from now on."""
        if not self._fds:
            raise WireError("the peer announced a stream and sent none")
        return self._fds.pop(0)

    def is_quiet(self) -> bool:
        """True if the peer has neither closed its end nor sent anything unexpected."""
        if self._buffer or self._fds:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    async def comes_again(self) -> bool:
        """Wait for another frame to begin; False if the peer closes instead."""
        return bool(self._buffer) or await self._fill()

    async def closed(self) -> None:
        """Return once the peer has closed its end (or has sent something unexpected)."""
        await self._fill()

    async def _send_with_fd(self, data: memoryview, fd: int) -> int:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        while True:
            try:
                return self._sock.sendmsg([data], ancillary)
            except (BlockingIOError, InterruptedError):
                await self._ready(write=True)
            except OSError as error:
                raise WireError(f"the peer went away: {error}") from error

    async def _read(self, count: int, *, eof_ok: bool) -> bytes | None:
        while len(self._buffer) < count:
            if not await self._fill(count - len(self._buffer)):
                if eof_ok and not self._buffer:
                    return None
                raise WireError("the peer closed in the middle of a frame")
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def _fill(self, wanted: int = 0) -> bool:
        size = min(max(wanted, _SMALL_BYTES), _LARGE_BYTES)
        while True:
            try:
                data, fds, flags = self._recv(size)
            except (BlockingIOError, InterruptedError):
                await self._ready(write=False)
                continue
            except OSError as error:
                raise WireError(f"the peer went away: {error}") from error
            self._fds.extend(fds)
            if flags & socket.MSG_CTRUNC or len(self._fds) > 1:
                raise WireError("the peer sent descriptors that were not asked for")
            self._buffer.extend(data)
            return bool(data)

    def _recv(self, size: int) -> tuple[bytes, list[int], int]:
        if self._takes_stream:
            data, fds, flags, _ = socket.recv_fds(self._sock, size, 1)
            return data, fds, flags
        data, _, flags, _ = self._sock.recvmsg(size)
        return data, [], flags

    async def _ready(self, *, write: bool) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        fd = self._sock.fileno()
        if write:
            add, remove = loop.add_writer, loop.remove_writer
        else:
            add, remove = loop.add_reader, loop.remove_reader
        add(fd, _wake, future)
        try:
            await future
        finally:
            remove(fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
