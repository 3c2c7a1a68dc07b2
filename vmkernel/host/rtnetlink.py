"""Addresses of network links, and notifications of changes of links or addresses.

Only reads: `vmkernel/network` makes and changes links. The few structures are decoded here, because
pyroute2 would take more start time than everything else.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator

__all__ = ["ChangeSocket", "addresses", "decode_addresses"]

_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_REQUEST_DUMP = 0x1 | 0x300
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_FLAGS = 8
_NOT_USABLE = 0x08 | 0x40
"""DADFAILED, TENTATIVE."""
_GROUPS = 0x1 | 0x10 | 0x100
"""Links, IPv4 addresses, IPv6 addresses."""


def addresses(*, usable: bool = True) -> dict[int, tuple[str, ...]]:
    """The addresses of all links in CIDR notation, by the link's index. Without `usable`, also
    those that are still being checked for duplicates, or are duplicates.
    """
    found: dict[int, list[str]] = {}
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(2.0)
        request = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        length = _HEADER.size + len(request)
        sock.sendall(_HEADER.pack(length, _RTM_GETADDR, _REQUEST_DUMP, 1, 0) + request)
        done = False
        while not done:
            data = sock.recv(1 << 16)
            for index, address in decode_addresses(data, usable=usable):
                found.setdefault(index, []).append(address)
            done = _is_last(data)
    return {index: tuple(texts) for index, texts in found.items()}


def decode_addresses(data: bytes, *, usable: bool = True) -> Iterator[tuple[int, str]]:
    """The (link index, address) pairs of a reply."""
    for kind, body in _messages(data):
        if kind != _RTM_NEWADDR or len(body) < _ADDRESS.size:
            continue
        _, prefix, flags, _, index = _ADDRESS.unpack_from(body)
        attributes = dict(_attributes(body[_ADDRESS.size :]))
        if len(attributes.get(_IFA_FLAGS, b"")) == 4:
            flags = int.from_bytes(attributes[_IFA_FLAGS], "little")
        raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if raw is not None and len(raw) in (4, 16) and not (usable and flags & _NOT_USABLE):
            yield index, f"{ipaddress.ip_address(raw)}/{prefix}"


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _is_last(data: bytes) -> bool:
    for kind, body in _messages(data):
        if kind == _NLMSG_ERROR:
            code = -int.from_bytes(body[:4], "little", signed=True)
            raise OSError(code, os.strerror(code))
        if kind == _NLMSG_DONE:
            return True
    return False


class ChangeSocket:
    """Readable after a link or an address has changed."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _GROUPS))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self, changed: Callable[[], None]) -> None:
        """Read everything pending and call `changed`; the content doesn't matter, callers read
        everything again.
        """
        while True:
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                continue
        changed()

    def close(self) -> None:
        self._socket.close()
