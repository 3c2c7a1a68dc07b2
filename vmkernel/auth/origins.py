"""What counts as one origin when something is limited for each: an address, of IPv6 its /64."""

from __future__ import annotations

import ipaddress

__all__ = ["network_of"]


def network_of(origin: str) -> str:
    """The IPv4 address or IPv6 /64 network of a client's address; other text as it is."""
    try:
        address = ipaddress.ip_address(origin.partition("%")[0])
    except ValueError:
        return origin[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
