"""The addresses that images may be fetched from: only those of other machines.

Refused are this host's own, those of one link (where cloud metadata services are), those of many
receivers, and all forms in which IPv6 carries an IPv4 address of that kind: a translator or tunnel
on the way would lead back. Sources: RFC 4291 2.5.5 (mapped, compatible), RFC 3056 (6to4), RFC 4380
(Teredo), RFC 6052 and 8215 (NAT64), RFC 2765 (translated), RFC 5214 (ISATAP).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from vmkernel.host.route_lookup import stays_here

__all__ = ["judge_address"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REFUSED_4 = tuple(map(ipaddress.IPv4Network, ("0.0.0.0/8", "240.0.0.0/4")))
""""This network", and ranges that were never assigned (with the broadcast address)."""
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_ISATAP = 0x5EFE
_RFC6052_LENGTHS = (48, 56, 64, 96)


def judge_address(
    text: str, *, allow_loopback: bool, own: Callable[[Address], bool] = stays_here
) -> bool:
    """True if connecting to an IP address is allowed now. `own` knows this host's addresses."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return allow_loopback
    if isinstance(address, ipaddress.IPv6Address) and address in _COMPATIBLE:
        return False
    return all(_of_others(one, own) for one in (address, *_embedded(address)))


def _of_others(address: Address, own: Callable[[Address], bool]) -> bool:
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (isinstance(address, ipaddress.IPv4Address) and any(address in n for n in _REFUSED_4))
        or (isinstance(address, ipaddress.IPv6Address) and address in _SITE_LOCAL)
        or own(address)
    )


def _embedded(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address may stand for."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if (number >> 32 & 0xFDFFFFFF) == _ISATAP or address in _TRANSLATED or address in _NAT64:
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if address in _NAT64_LOCAL:
        for length in _RFC6052_LENGTHS:
            found = _by_rfc6052(number, length)
            if found not in _REFUSED_4[0]:  # where the prefix has another length
                yield found


def _by_rfc6052(number: int, length: int) -> ipaddress.IPv4Address:
    """The address behind a prefix of `length` bits; bits 64 to 71 are not part of it."""
    if length == 96:
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    high = number >> 64
    low = number & ((1 << 56) - 1)
    joined = high << 56 | low  # 120 bits, without the octet in the middle
    return ipaddress.IPv4Address(joined >> (120 - length - 32) & 0xFFFFFFFF)
