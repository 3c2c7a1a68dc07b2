"""Ports of a Linux bridge: join, bring up, set the VLAN.

Joining and bringing up are two old ioctls, which cost nothing; pyroute2, needed for VLANs only,
takes a quarter of a second to import (seconds under emulation) and is loaded when the first port
group with a VLAN is used.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from pathlib import Path

__all__ = ["join_bridge", "set_port_vlan"]

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCBRADDIF = 0x89A2
_IFF_UP = 0x1
_FLAGS = struct.Struct("16sh22x")
_INDEX = struct.Struct("16si20x")


def join_bridge(port: str, bridge: str, *, learns: bool) -> None:
    """Make an interface a port of a bridge, and bring it up; OSError if that fails.

    What a guest sends can't change the switch: its spanning tree frames are dropped, it can't
    become the root, nor be taken for a router of multicasts. Unless the port `learns`, the bridge
    knows only the addresses that were set for it, and sends it no frames for unknown ones.
    """
    index = socket.if_nametoindex(port)
    flags_of_port = {
        "bpdu_guard": "1",
        "root_block": "1",
        "multicast_router": "0",
        "learning": str(int(learns)),
        "unicast_flood": str(int(learns)),
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock, _SIOCBRADDIF, _INDEX.pack(bridge.encode(), index))
        for name, value in flags_of_port.items():
            Path(f"/sys/class/net/{port}/brport/{name}").write_text(value)
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, _FLAGS.pack(port.encode(), 0))
        flags = _FLAGS.unpack(answer)[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _FLAGS.pack(port.encode(), flags | _IFF_UP))


def set_port_vlan(port: str, vlan: int) -> None:
    """Let a port carry exactly one VLAN, untagged on its side; blocks while
    pyroute2 is imported.
    """
    from pyroute2 import IPRoute

    index = socket.if_nametoindex(port)
    with IPRoute() as route:
        route.vlan_filter("del", index=index, vlan_info={"vid": 1})
        route.vlan_filter(
            "add", index=index, vlan_info={"vid": vlan, "flags": ["pvid", "untagged"]}
        )
