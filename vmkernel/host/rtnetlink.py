"""Addresses of network links, and notifications of changes of links or addresses.

Only reads: `vmkernel/network` makes and changes links. The few structures are decoded here, because
pyroute2 would take more start time than everything else.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator

from vmkernel.host import netlink

__all__ = ["ChangeSocket", "addresses", "decode_addresses"]

_ADDRESS = struct.Struct("=BBBBI")
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
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
    with netlink.route_socket(timeout_s=2.0) as sock:
        asked = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        sock.sendall(netlink.request(_RTM_GETADDR, netlink.NLM_F_DUMP, asked))
        done = False
        while not done:
            data = sock.recv(1 << 16)
            for index, address in decode_addresses(data, usable=usable):
                found.setdefault(index, []).append(address)
            done = netlink.is_last(data)
    return {index: tuple(texts) for index, texts in found.items()}


def decode_addresses(data: bytes, *, usable: bool = True) -> Iterator[tuple[int, str]]:
    """The (link index, address) pairs of a reply."""
    for kind, body in netlink.messages(data):
        if kind != _RTM_NEWADDR or len(body) < _ADDRESS.size:
            continue
        _, prefix, flags, _, index = _ADDRESS.unpack_from(body)
        attributes = dict(netlink.attributes(body[_ADDRESS.size :]))
        if len(attributes.get(_IFA_FLAGS, b"")) == 4:
            flags = int.from_bytes(attributes[_IFA_FLAGS], "little")
        raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if raw is not None and len(raw) in (4, 16) and not (usable and flags & _NOT_USABLE):
            yield index, f"{ipaddress.ip_address(raw)}/{prefix}"


class ChangeSocket:
    """Readable after a link or an address has changed."""

    def __init__(self) -> None:
        self._socket = netlink.route_socket(timeout_s=None)
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
