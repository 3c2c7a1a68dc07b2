"""What counts as one source when something is limited for each: an address, of IPv6 its /64."""

from __future__ import annotations

import ipaddress

__all__ = ["source_of"]


def source_of(address: str) -> str:
    """The IPv4 address, or the /64 of the IPv6 address, that a client's address belongs to."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64)) + "/64"
    return str(parsed)
