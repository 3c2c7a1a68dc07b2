"""Whether the kernel would keep what is sent to an address on this machine (rtnetlink).

The answer is valid for that moment, considers all addresses of all interfaces, and needs no
privilege. Layouts: linux/netlink.h, linux/rtnetlink.h (struct nlmsghdr, rtmsg, rtattr). It imports
little, because a confined worker uses it.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from vmkernel.host import netlink

__all__ = ["stays_here"]

_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RTA_DST = 1
_RTMSG = struct.Struct("=8BI")
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
    body += netlink.attribute(_RTA_DST, address.packed)
    with netlink.route_socket(timeout_s=_TIMEOUT_S) as sock:
        sock.bind((0, 0))
        sock.send(netlink.request(_RTM_GETROUTE, 0, body))
        answer = sock.recv(8192)
    try:
        kind, content = next(netlink.messages(answer), (None, b""))
    except OSError:
        return False  # there is no way to it
    if kind != _RTM_NEWROUTE or len(content) < _RTMSG.size:
        raise OSError("the kernel's answer about a route can't be understood")
    route = _RTMSG.unpack_from(content)[7]
    return route != _UNICAST and route not in _ADMINISTRATIVE
