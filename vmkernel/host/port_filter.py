"""The filter at the inward side of a link (clsact and cls_bpf), and static entries of a bridge's
address table; over rtnetlink, without pyroute2, which would take more start time than everything
else.

A filter is two programs in a fixed order: what the first accepts is passed, everything else reaches
the second, which drops it. So a frame that makes the first one fail is dropped.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from vmkernel.host import netlink

__all__ = ["add_static_address", "has_filter", "set_filter"]

_TRAFFIC = struct.Struct("=BxxxiIII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_INSTRUCTION = struct.Struct("=HBBI")

_RTM_NEWNEIGH, _RTM_NEWQDISC, _RTM_NEWTFILTER, _RTM_GETTFILTER = 28, 36, 44, 46
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
        _ask(
            sock,
            _RTM_NEWQDISC,
            netlink.NLM_F_CREATE,
            clsact + netlink.attribute(_TCA_KIND, b"clsact\0"),
        )
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
            options = dict(netlink.attributes(body[_TRAFFIC.size :])).get(_TCA_OPTIONS)
            if options is not None:
                order = _TRAFFIC.unpack_from(body)[4] >> 16
                found[order] = dict(netlink.attributes(options)).get(_TCA_BPF_OPS, b"")
    return found == wanted


def add_static_address(port: str, mac: str) -> None:
    """Fix an address to a port of a bridge: it can't be learnt behind another port. It is removed
    with the port. OSError.
    """
    index = socket.if_nametoindex(port)
    head = _NEIGHBOUR.pack(socket.AF_BRIDGE, index, _NUD_NOARP, _NTF_MASTER | _NTF_STICKY, 0)
    address = netlink.attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    with _open() as sock:
        _ask(sock, _RTM_NEWNEIGH, netlink.NLM_F_CREATE, head + address)


def _put(sock: socket.socket, index: int, order: int, program: Program, *, direct: bool) -> None:
    head = _TRAFFIC.pack(0, index, 1, _INGRESS, order << 16 | _EVERY_PROTOCOL)
    options = netlink.attribute(_TCA_BPF_OPS_LEN, struct.pack("=H", len(program)))
    options += netlink.attribute(_TCA_BPF_OPS, _encode(program))
    if direct:
        options += netlink.attribute(_TCA_BPF_FLAGS, struct.pack("=I", _ACT_DIRECT))
    body = netlink.attribute(_TCA_KIND, b"bpf\0") + netlink.attribute(
        _TCA_OPTIONS | _NESTED, options
    )
    _ask(sock, _RTM_NEWTFILTER, netlink.NLM_F_CREATE, head + body)


def _encode(program: Program) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def _open() -> socket.socket:
    return netlink.route_socket(timeout_s=_TIMEOUT_S)


def _ask(sock: socket.socket, kind: int, flags: int, body: bytes) -> None:
    """A request that the kernel only acknowledges. OSError."""
    sock.sendall(netlink.request(kind, netlink.NLM_F_ACK | flags, body))
    for _ in netlink.messages(sock.recv(1 << 16)):
        pass  # none is wanted; an error is raised


def _dump(sock: socket.socket, kind: int, body: bytes) -> list[bytes]:
    sock.sendall(netlink.request(kind, netlink.NLM_F_DUMP, body))
    found: list[bytes] = []
    while True:
        for answer, content in netlink.messages(sock.recv(1 << 17)):
            if answer == netlink.NLMSG_DONE:
                return found
            found.append(content)
