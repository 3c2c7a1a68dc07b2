"""Whether the kernel would keep what is sent to an address on this machine (rtnetlink).

The answer is valid for that moment, considers all addresses of all interfaces, and needs no
privilege. Layouts: linux/netlink.h, linux/rtnetlink.h (struct nlmsghdr, rtmsg, rtattr). It imports
little, because a confined worker uses it.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

__all__ = ["stays_here"]

_NETLINK_ROUTE = 0
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_RTA_DST = 1
_HEADER = struct.Struct("=IHHII")
_RTMSG = struct.Struct("=8BI")
_ATTRIBUTE = struct.Struct("=HH")
_UNICAST = 1
_ADMINISTRATIVE = frozenset({0, 6, 7, 8, 9})
"""RTN_UNSPEC, BLACKHOLE, UNREACHABLE, PROHIBIT, THROW: not delivered anywhere."""
_TIMEOUT_S = 5.0


def stays_here(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """True if an address is this machine's own, or broadcast, multicast or anycast.

    False if it is another machine's, or can't be reached at all. OSError if the kernel can't be
    asked.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _RTA_DST) + address.packed
    head = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE
    ) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.bind((0, 0))
        sock.send(head + body)
        answer = sock.recv(8192)
    if len(answer) < _HEADER.size + _RTMSG.size:
        raise OSError("the kernel's answer about a route is too short")
    kind = _HEADER.unpack_from(answer)[1]
    if kind == _NLMSG_ERROR:
        return False
    if kind != _RTM_NEWROUTE:
        raise OSError("the kernel's answer about a route can't be understood")
    route = _RTMSG.unpack_from(answer, _HEADER.size)[7]
    return route != _UNICAST and route not in _ADMINISTRATIVE
