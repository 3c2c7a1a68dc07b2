"""Tap devices and vhost-net: opened here, used by a QEMU that may not open them."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path

__all__ = ["open_tap", "open_vhost_net"]

_TUNSETIFF = 0x400454CA
_TUNGETIFF = 0x800454D2
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_REQUEST = struct.Struct("16sH22x")
_SIOCGIFHWADDR = 0x8927
_SIOCSIFHWADDR = 0x8924
_ADDRESS_REQUEST = struct.Struct("16sH6s16x")
_HIGHEST = 0xFE
_PATTERN = b"vmtap%d"
"""The kernel fills in the lowest free number."""


def open_tap() -> tuple[int, str]:
    """A new tap that exists while its descriptor is open; returns the descriptor and the tap's
    name.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        request = _REQUEST.pack(_PATTERN, _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        answer = fcntl.ioctl(fd, _TUNSETIFF, request)
        name = _REQUEST.unpack(answer)[0].rstrip(b"\0").decode("ascii")
        # The host has no business on a guest's wire: no link-local address, no router seen.
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        _rank_last(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd, name


def _rank_last(fd: int) -> None:
    """Give the tap an address above all real ones.

    A bridge uses the lowest address of its ports: otherwise starting a guest could change the
    host's address, and with it the host's DHCP lease.
    """
    answer = fcntl.ioctl(fd, _TUNGETIFF, bytes(_REQUEST.size))
    name = _REQUEST.unpack(answer)[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        answer = fcntl.ioctl(control, _SIOCGIFHWADDR, _ADDRESS_REQUEST.pack(name, 0, bytes(6)))
        _, family, address = _ADDRESS_REQUEST.unpack(answer)
        ranked = bytes([_HIGHEST]) + address[1:]
        fcntl.ioctl(control, _SIOCSIFHWADDR, _ADDRESS_REQUEST.pack(name, family, ranked))


def open_vhost_net() -> int:
    """A descriptor through which the kernel itself moves a virtio NIC's frames."""
    return os.open("/dev/vhost-net", os.O_RDWR | os.O_CLOEXEC)
