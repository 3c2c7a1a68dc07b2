"""A link's hardware address: whether it is fixed, and fixing it."""

from __future__ import annotations

import fcntl
import socket
import struct
from pathlib import Path

from vmkernel.host.sysfs import SYS, read_int, read_text

__all__ = ["fix_hardware_address", "hardware_address_is_fixed"]

_SIOCSIFHWADDR = 0x8924
_ARPHRD_ETHER = 1
_NET_ADDR_SET = 3
_REQUEST = struct.Struct("16sH6s8x")


def hardware_address_is_fixed(name: str, mac: str, sys: Path = SYS) -> bool:
    """True if the link has this address because it was set, not because of its ports."""
    folder = sys / "class/net" / name
    return (
        read_int(folder / "addr_assign_type") == _NET_ADDR_SET
        and read_text(folder / "address") == mac
    )


def fix_hardware_address(name: str, mac: str) -> None:
    """Set a link's address, even to the one it has: from then on it stays. OSError.

    A bridge without a set address takes the lowest address of its ports, and changes it with them.
    """
    request = _REQUEST.pack(name.encode(), _ARPHRD_ETHER, bytes.fromhex(mac.replace(":", "")))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock, _SIOCSIFHWADDR, request)
