"""A reader of NBD exports: fixed newstyle handshake, structured replies, block status.

Only what reading a disk of a running QEMU needs; no library for it exists that doesn't need a C
library. Source: doc/proto.md of the NBD project.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vmkernel.text import clean

__all__ = ["ALLOCATION", "Extent", "MAX_READ_BYTES", "NbdError", "NbdReader", "extents_of"]

ALLOCATION = "base:allocation"
MAX_READ_BYTES = 1 << 20

_NBDMAGIC = 0x4E42444D41474943
_IHAVEOPT = 0x49484156454F5054
_OPTION_REPLY = 0x0003E889045565A9
_REQUEST = 0x25609513
_CHUNK = 0x668E33EF
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_GO, _OPT_STRUCTURED, _OPT_META = 7, 8, 10
_REP_ACK, _REP_INFO, _REP_META = 1, 3, 4
_REP_ERROR = 1 << 31
_INFO_EXPORT = 0
_READ, _DISCONNECT, _STATUS = 0, 2, 7
_DONE = 1
_CHUNK_DATA, _CHUNK_HOLE, _CHUNK_STATUS, _CHUNK_ERROR = 1, 2, 5, 1 << 15
_ZERO = 2
_MAX_ANSWER = 4 << 20
"""Of all parts of an answer: at most MAX_READ_BYTES are requested, and a server reports at most 1
MiB about blocks for each of two contexts."""
_MAX_SIZE = 1 << 62
_ANSWER_S = 120.0
_TRIES = 3
"""Each connection that is lost meanwhile costs a handshake; if QEMU has ended, nothing."""


class NbdError(Exception):
    """The server refused, or violated the protocol."""


@dataclass(frozen=True)
class Extent:
    """A range of bytes of a disk; `zero` if they are all zero."""

    offset: int
    length: int
    zero: bool


Runs = Sequence[tuple[int, int]]
"""Lengths and flags, one after the other."""


def extents_of(offset: int, allocation: Runs, dirty: Runs | None) -> list[Extent]:
    """The runs of one answer of `status`, without those that aren't dirty; adjacent equal ones are
    joined.
    """
    found: list[Extent] = []
    changed = list(dirty) if dirty is not None else [(sum(n for n, _ in allocation), 1)]
    zeros = list(allocation)
    at = offset
    while zeros and changed:
        step = min(zeros[0][0], changed[0][0])
        if changed[0][1] & 1:
            zero = bool(zeros[0][1] & _ZERO)
            last = found[-1] if found else None
            if last is not None and last.zero is zero and last.offset + last.length == at:
                found[-1] = Extent(last.offset, last.length + step, zero)
            else:
                found.append(Extent(at, step, zero))
        at += step
        for runs in (zeros, changed):
            left = runs[0][0] - step
            if left:
                runs[0] = (left, runs[0][1])
            else:
                del runs[0]
    return found


class NbdReader:
    """One export, open for reading. One request at a time. If the server closes the connection but
    accepts another, the request is repeated: QEMU drops a client whose handshake took long, even if
    its last answer was just sent.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        again: Callable[[], Awaitable[NbdReader]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._again = again
        self._cookies = itertools.count(1)
        self._contexts: dict[int, str] = {}
        self.size_bytes = 0

    @classmethod
    async def open(cls, path: Path, export: str, contexts: Sequence[str]) -> NbdReader:
        """Connect to a server's Unix socket and select an export and its metadata contexts."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(str(path))
                nbd = cls(reader, writer, partial(cls.open, path, export, contexts))
                try:
                    await nbd._negotiate(export, contexts)
                except BaseException:
                    writer.close()
                    raise
        except TimeoutError as error:
            raise NbdError(
                f"the export {export} can't be opened: no answer within {_ANSWER_S:g} s"
            ) from error
        except (OSError, EOFError, struct.error) as error:
            raise NbdError(f"the export {export} can't be opened: {error}") from error
        return nbd

    async def close(self) -> None:
        """Disconnect."""
        try:
            self._writer.write(struct.pack(">IHHQQI", _REQUEST, 0, _DISCONNECT, 0, 0, 0))
            await self._writer.drain()
        except OSError:
            pass
        self._writer.close()

    async def read(self, offset: int, length: int) -> bytes:
        """At most MAX_READ_BYTES."""
        data = bytearray(length)
        for kind, payload in await self._ask(_READ, offset, length):
            if kind == _CHUNK_DATA:
                (at,) = _unpack(">Q", payload)
                if at < offset:
                    raise NbdError("the server sent more than was asked for")
                data[at - offset : at - offset + len(payload) - 8] = payload[8:]
        if len(data) != length:
            raise NbdError("the server sent more than was asked for")
        return bytes(data)

    async def status(self, offset: int, length: int) -> dict[str, list[tuple[int, int]]]:
        """Runs from `offset` on for each metadata context, as far as the server reports them."""
        found: dict[str, list[tuple[int, int]]] = {}
        for kind, payload in await self._ask(_STATUS, offset, length):
            if kind == _CHUNK_STATUS:
                (context,) = _unpack(">I", payload)
                if len(payload) % 8 != 4:
                    raise NbdError("the server's answer can't be understood")
                runs = list(struct.iter_unpack(">II", payload[4:]))
                found[self._contexts.get(context, "")] = runs
        for name in self._contexts.values():
            # Whoever goes on from where an answer ends must come nearer to the end.
            if not sum(count for count, _ in found.get(name, ())):
                raise NbdError("the server reports nothing about the blocks")
        return found

    async def _ask(self, command: int, offset: int, length: int) -> list[tuple[int, bytes]]:
        for left in reversed(range(_TRIES)):
            cookie = next(self._cookies)
            try:
                async with asyncio.timeout(_ANSWER_S):
                    self._writer.write(
                        struct.pack(">IHHQQI", _REQUEST, 0, command, cookie, offset, length)
                    )
                    await self._writer.drain()
                    return await self._chunks(cookie)
            except TimeoutError as error:
                raise NbdError(f"the server did not answer within {_ANSWER_S:g} s") from error
            except (OSError, EOFError) as error:
                if not left:
                    raise NbdError(f"the server is gone: {error}") from error
                await self._reconnect()
        raise AssertionError("unreachable")

    async def _reconnect(self) -> None:
        """Continue with a new connection to the same export; NbdError if there is none any more."""
        other = await self._again()
        if other.size_bytes != self.size_bytes:
            await other.close()
            raise NbdError("the server has another disk by that name")
        self._writer.close()
        self._reader, self._writer = other._reader, other._writer
        self._contexts = other._contexts

    async def _chunks(self, cookie: int) -> list[tuple[int, bytes]]:
        found = []
        total = 0
        while True:
            head = await self._reader.readexactly(20)
            magic, flags, kind, echoed, length = struct.unpack(">IHHQI", head)
            total += length + len(head)
            if magic != _CHUNK or echoed != cookie or total > _MAX_ANSWER:
                raise NbdError("the server's answer can't be understood")
            payload = await self._reader.readexactly(length)
            if kind & _CHUNK_ERROR:
                number, size = _unpack(">IH", payload)
                words = clean(payload[6 : 6 + size].decode(errors="replace"))
                raise NbdError(f"the server refuses ({number}): {words}")
            found.append((kind, payload))
            if flags & _DONE:
                return found

    # --- handshake ----------------------------------------------------------------------------

    async def _negotiate(self, export: str, contexts: Sequence[str]) -> None:
        magic, want, flags = struct.unpack(">QQH", await self._reader.readexactly(18))
        if magic != _NBDMAGIC or want != _IHAVEOPT or not flags & _FIXED_NEWSTYLE:
            raise NbdError("this is not an NBD server of the new style")
        self._writer.write(struct.pack(">I", flags & (_FIXED_NEWSTYLE | _NO_ZEROES)))
        await self._option(_OPT_STRUCTURED, b"")
        name = export.encode()
        queries = b"".join(struct.pack(">I", len(c)) + c.encode() for c in contexts)
        chosen = await self._option(
            _OPT_META,
            struct.pack(">I", len(name)) + name + struct.pack(">I", len(contexts)) + queries,
        )
        for kind, payload in chosen:
            if kind == _REP_META:
                (number,) = struct.unpack_from(">I", payload)
                self._contexts[number] = payload[4:].decode(errors="replace")
        if set(contexts) - set(self._contexts.values()):
            raise NbdError(f"the export {export} does not offer {', '.join(contexts)}")
        for kind, payload in await self._option(
            _OPT_GO, struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
        ):
            if kind == _REP_INFO and struct.unpack_from(">H", payload)[0] == _INFO_EXPORT:
                (self.size_bytes,) = struct.unpack_from(">Q", payload, 2)
                if self.size_bytes > _MAX_SIZE:
                    raise NbdError(f"the export {export} says that it has no end")

    async def _option(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        self._writer.write(struct.pack(">QII", _IHAVEOPT, option, len(data)) + data)
        await self._writer.drain()
        found: list[tuple[int, bytes]] = []
        total = 0
        while True:
            head = await self._reader.readexactly(20)
            magic, echoed, kind, length = struct.unpack(">QIII", head)
            total += length + len(head)
            if magic != _OPTION_REPLY or echoed != option or total > _MAX_ANSWER:
                raise NbdError("the server's answer can't be understood")
            payload = await self._reader.readexactly(length)
            if kind & _REP_ERROR:
                words = clean(payload[:4096].decode(errors="replace"))
                raise NbdError(f"the server refuses: {words}")
            if kind == _REP_ACK:
                return found
            found.append((kind, payload))


def _unpack(layout: str, payload: bytes) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, payload)
    except struct.error as error:
        raise NbdError("the server's answer can't be understood") from error
