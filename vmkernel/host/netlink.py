"""The form of the kernel's netlink messages (linux/netlink.h), for the modules that speak it
without pyroute2. It imports little, because a confined worker uses it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

__all__ = [
    "NLMSG_DONE",
    "NLM_F_ACK",
    "NLM_F_CREATE",
    "NLM_F_DUMP",
    "attribute",
    "attributes",
    "is_last",
    "messages",
    "request",
    "route_socket",
]

NLMSG_DONE = 3
NLM_F_ACK, NLM_F_DUMP, NLM_F_CREATE = 0x4, 0x300, 0x400
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 0x1
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_KIND_MASK = 0x3FFF
"""Without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""


def route_socket(*, timeout_s: float | None) -> socket.socket:
    """A socket of NETLINK_ROUTE; without a timeout it doesn't block."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    if timeout_s is None:
        sock.setblocking(False)
    else:
        sock.settimeout(timeout_s)
    return sock


def request(kind: int, flags: int, body: bytes) -> bytes:
    """A request, with its header."""
    head = _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, 1, 0)
    return head + body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and the body of each whole message. Raises OSError for one that is an error; an
    acknowledgement is left out."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        body = data[offset + _HEADER.size : offset + length]
        if kind != _NLMSG_ERROR:
            yield kind, body
        elif len(body) >= _ERROR.size and (code := -_ERROR.unpack_from(body)[0]):
            raise OSError(code, os.strerror(code))
        offset += (length + 3) & ~3


def is_last(data: bytes) -> bool:
    """True if a dump ends in these messages. Raises OSError."""
    return any(kind == NLMSG_DONE for kind, _ in messages(data))


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded to 4 bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message, or those inside a nested one."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            return
        yield kind & _KIND_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
