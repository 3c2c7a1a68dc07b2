"""The server's side of NBD's messages, for servers of a few lines. Source: doc/proto.md of NBD."""

from __future__ import annotations

import asyncio
import struct

__all__ = [
    "DISCONNECT",
    "GREETING",
    "OPT_GO",
    "OPT_META",
    "READ",
    "STATUS",
    "chunk",
    "read_option",
    "read_request",
    "reply",
]

GREETING = struct.pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 3)
OPT_GO, OPT_META = 7, 10
READ, DISCONNECT, STATUS = 0, 2, 7


async def read_option(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The number and the data of an option."""
    _, option, length = struct.unpack(">QII", await reader.readexactly(16))
    return option, await reader.readexactly(length)


def reply(writer: asyncio.StreamWriter, option: int, kind: int, data: bytes) -> None:
    writer.write(struct.pack(">QIII", 0x0003E889045565A9, option, kind, len(data)) + data)


async def read_request(reader: asyncio.StreamReader) -> tuple[int, int, int, int]:
    """Command, cookie, offset and length."""
    _, _, command, cookie, offset, length = struct.unpack(">IHHQQI", await reader.readexactly(28))
    return command, cookie, offset, length


def chunk(writer: asyncio.StreamWriter, flags: int, kind: int, cookie: int, data: bytes) -> None:
    """A part of the answer to a request; with flag 1 the last one."""
    writer.write(struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(data)) + data)
