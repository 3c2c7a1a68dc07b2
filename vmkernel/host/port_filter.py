"""The filter at the inward side of a link (clsact and cls_bpf), and static entries of a bridge's
address table; over rtnetlink, without pyroute2, which would take more start time than everything
else.

A filter is two programs in a fixed order: what the first accepts is passed, everything else reaches
the second, which drops it. So a frame that makes the first one fail is dropped.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

__all__ = ["add_static_address", "has_filter", "set_filter"]

_HEADER = struct.Struct("=IHHII")
_TRAFFIC = struct.Struct("=BxxxiIII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_ATTRIBUTE = struct.Struct("=HH")
_INSTRUCTION = struct.Struct("=HBBI")
_ERROR = struct.Struct("=i")

_RTM_NEWNEIGH, _RTM_NEWQDISC, _RTM_NEWTFILTER, _RTM_GETTFILTER = 28, 36, 44, 46
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP, _CREATE = 0x1, 0x4, 0x300, 0x400
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_OPS_LEN, _TCA_BPF_OPS, _TCA_BPF_FLAGS = 4, 5, 8
_ACT_DIRECT = 1
_NESTED = 0x8000
_CLSACT, _CLSACT_HANDLE, _INGRESS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2
_EVERY_PROTOCOL = socket.htons(0x0003)
_TC_ACT_SHOT = 2
_DROP = ((0x06, 0, 0, _TC_ACT_SHOT),)
_NDA_LLADDR = 2
_NUD_NOARP = 0x40
_NTF_MASTER, _NTF_STICKY = 0x04, 0x40
_PASSING, _DROPPING = 1, 2
"""The order of the two programs."""
_TIMEOUT_S = 5.0
"""The kernel answers at once; it may wait for another change of links."""

Program = Sequence[tuple[int, int, int, int]]


def set_filter(link: str, program: Program) -> None:
    """Pass only those incoming frames of a link that a classic BPF program accepts with 0xffffffff;
    replaces an earlier filter without a gap. OSError.
    """
    index = socket.if_nametoindex(link)
    with _open() as sock:
        clsact = _TRAFFIC.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0)
        _ask(sock, _RTM_NEWQDISC, _CREATE, clsact + _attribute(_TCA_KIND, b"clsact\0"))
        _put(sock, index, _DROPPING, _DROP, direct=True)
        _put(sock, index, _PASSING, program, direct=False)


def has_filter(link: str, program: Program) -> bool:
    """True if exactly this program, and nothing else, filters a link's frames. OSError."""
    index = socket.if_nametoindex(link)
    wanted = {_PASSING: _encode(program), _DROPPING: _encode(_DROP)}
    with _open() as sock:
        request = _TRAFFIC.pack(0, index, 0, _INGRESS, 0)
        found = {}
        for body in _dump(sock, _RTM_GETTFILTER, request):
            options = dict(_attributes(body[_TRAFFIC.size :])).get(_TCA_OPTIONS)
            if options is not None:
                order = _TRAFFIC.unpack_from(body)[4] >> 16
                found[order] = dict(_attributes(options)).get(_TCA_BPF_OPS, b"")
    return found == wanted


def add_static_address(port: str, mac: str) -> None:
    """Fix an address to a port of a bridge: it can't be learnt behind another port. It is removed
    with the port. OSError.
    """
    index = socket.if_nametoindex(port)
    head = _NEIGHBOUR.pack(socket.AF_BRIDGE, index, _NUD_NOARP, _NTF_MASTER | _NTF_STICKY, 0)
    address = _attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    with _open() as sock:
        _ask(sock, _RTM_NEWNEIGH, _CREATE, head + address)


def _put(sock: socket.socket, index: int, order: int, program: Program, *, direct: bool) -> None:
    head = _TRAFFIC.pack(0, index, 1, _INGRESS, order << 16 | _EVERY_PROTOCOL)
    options = _attribute(_TCA_BPF_OPS_LEN, struct.pack("=H", len(program)))
    options += _attribute(_TCA_BPF_OPS, _encode(program))
    if direct:
        options += _attribute(_TCA_BPF_FLAGS, struct.pack("=I", _ACT_DIRECT))
    body = _attribute(_TCA_KIND, b"bpf\0") + _attribute(_TCA_OPTIONS | _NESTED, options)
    _ask(sock, _RTM_NEWTFILTER, _CREATE, head + body)


def _encode(program: Program) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def _open() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    sock.settimeout(_TIMEOUT_S)
    return sock


def _ask(sock: socket.socket, kind: int, flags: int, body: bytes) -> None:
    """A request that the kernel only acknowledges."""
    head = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | flags, 1, 0)
    sock.sendall(head + body)
    for answer, content in _messages(sock.recv(1 << 16)):
        if answer == _NLMSG_ERROR:
            _raise(content)
            return


def _dump(sock: socket.socket, kind: int, body: bytes) -> list[bytes]:
    head = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 1, 0)
    sock.sendall(head + body)
    found: list[bytes] = []
    while True:
        for answer, content in _messages(sock.recv(1 << 17)):
            if answer == _NLMSG_ERROR:
                _raise(content)
            if answer == _NLMSG_DONE:
                return found
            found.append(content)


def _raise(content: bytes) -> None:
    code = -_ERROR.unpack_from(content)[0]
    if code:
        raise OSError(code, os.strerror(code))


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            break
        found.append((kind, data[offset + _HEADER.size : offset + length]))
        offset += (length + 3) & ~3
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    head = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind)
    return head + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            break
        found.append((kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]))
        offset += (length + 3) & ~3
    return found
