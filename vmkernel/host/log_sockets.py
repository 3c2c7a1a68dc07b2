"""Sockets of the log: the one that receives journald's lines, and those to a collector.

journald (ForwardToSyslog=yes) sends each line as a datagram to `/run/systemd/journal/syslog` if a
process listens there, never waits for it, and drops what doesn't fit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

__all__ = ["Connection", "JournalSocket", "connect_tcp", "connect_udp"]

JOURNAL_PATH = Path("/run/systemd/journal/syslog")
_BUFFER_BYTES = 1 << 20
_LINE_BYTES = 64 << 10
_LINES_AT_ONCE = 200


class JournalSocket:
    """Receives the journal's lines as they are written."""

    def __init__(self, path: Path = JOURNAL_PATH) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, kind)
        before = os.umask(0o177)  # nobody but root says what the host's log is
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind(str(path))
        except OSError:
            self._socket.close()
            raise
        finally:
            os.umask(before)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, handle: Callable[[bytes], None]) -> None:
        """Pass on what is available now, or only a part of it if that is a lot."""
        for _ in range(_LINES_AT_ONCE):
            try:
                line = self._socket.recv(_LINE_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            handle(line)

    def close(self) -> None:
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


class Connection:
    """A connection to a collector. After `send` has raised OSError it can't be used any more."""

    async def send(self, data: bytes) -> None:
        """Pass one message (or frame) to the kernel."""
        raise NotImplementedError

    def close(self) -> None:
        """Close it without waiting."""


class _Tcp(Connection):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        # A collector says nothing; what ends here is the connection.
        self._ended = asyncio.create_task(_until_end(reader), name="syslog: the collector's end")

    async def send(self, data: bytes) -> None:
        if self._ended.done():
            raise ConnectionResetError("the collector closed the connection")
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._ended.cancel()
        self._writer.transport.abort()


async def _until_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(4096):
            pass


async def connect_tcp(host: str, port: int) -> Connection:
    """Connect. OSError; the caller limits the time."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.transport.set_write_buffer_limits(high=0)  # what is drained, the kernel has
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return _Tcp(reader, writer)


class _Udp(Connection):
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    async def send(self, data: bytes) -> None:
        # Connected, so that a missing route and a refusal are told.
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def close(self) -> None:
        self._socket.close()


async def connect_udp(host: str, port: int) -> Connection:
    """Resolve the name and open a socket. OSError; the caller limits the time."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return _Udp(sock)
