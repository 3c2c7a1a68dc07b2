"""What a port lets its guest send, and the host's addresses on the wire; pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["HostIdentity", "PortPolicy", "interface_identifier"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class PortPolicy:
    """What a guest may send through one port. The defaults are the safe ones: an ordinary computer
    that answers for itself. Whatever is enabled here, a guest can never send control frames of
    switches, frames from the host's addresses, or claims of the host's addresses.
    """

    mac: str
    """The card's own address, in lower case with colons."""
    addresses: tuple[Network, ...] = ()
    """The networks or single addresses that the guest may send from; empty: unknown, any but the
    host's own."""
    forged_transmits: bool = False
    """Frames from other addresses than the NIC's, for a bridge or a hypervisor in the guest; the
    switch then learns what is behind the port, and floods unknown destinations to it."""
    router: bool = False
    """Router advertisements, redirects and multicast queries."""
    dhcp_server: bool = False
    """Answers of DHCP and DHCPv6 servers."""


@dataclass(frozen=True)
class HostIdentity:
    """The addresses that only the host may use."""

    macs: frozenset[str] = frozenset()
    addresses: frozenset[Address] = frozenset()

    @classmethod
    def of(cls, macs: Iterable[str], addresses: Iterable[str]) -> HostIdentity:
        """From text: hardware addresses, and addresses with or without a prefix length."""
        return cls(
            frozenset(mac.lower() for mac in macs),
            frozenset(ipaddress.ip_interface(address).ip for address in addresses),
        )


def interface_identifier(mac: str) -> bytes:
    """The lower half of the IPv6 addresses that an interface derives from its hardware address (RFC
    4291, appendix A): known before the prefix is, so a claim can be refused before the host has the
    address.
    """
    raw = bytes.fromhex(mac.replace(":", ""))
    return bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
