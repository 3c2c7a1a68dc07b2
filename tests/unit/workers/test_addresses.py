"""Which addresses images may be fetched from."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel.host.route_lookup import stays_here
from vmkernel.workers.addresses import Address, judge_address

OWN = {ipaddress.ip_address(text) for text in ("10.1.1.1", "2001:db8:5::7", "203.0.113.9")}


def _own(address: Address) -> bool:
    return address in OWN


def _nat64(prefix: str, length: int, address: str) -> str:
    """An IPv4 address behind a prefix, by the figure in RFC 6052 section 2.2."""
    octets = ipaddress.IPv4Address(address).packed
    packed = bytearray(ipaddress.IPv6Address(prefix).packed)
    places = [place for place in range(length // 8, 16) if place != 8][:4]
    for place, octet in zip(places, octets, strict=True):
        packed[place] = octet
    return str(ipaddress.IPv6Address(bytes(packed)))


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("192.0.2.1", True),
        ("10.1.2.3", True),
        ("10.1.1.1", False),
        ("::ffff:10.1.1.1", False),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("2001:db8:5::7", False),
        ("127.0.0.1", False),
        ("127.8.9.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("169.254.169.254", False),
        ("::ffff:169.254.169.254", False),
        ("fe80::1%eth0", False),
        ("fe80::1", False),
        ("fec0::1", False),
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("::", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("ff02::1", False),
        ("255.255.255.255", False),
        ("::10.1.2.3", False),
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("::ffff:0:192.0.2.1", True),
        ("2002:7f00:1::1", False),
        ("2002:a01:101::1", False),
        ("2002:a9fe:a9fe::1", False),
        ("2002:c000:201::1", True),
        ("64:ff9b::127.0.0.1", False),
        ("64:ff9b::10.1.1.1", False),
        ("64:ff9b::169.254.169.254", False),
        ("64:ff9b::192.0.2.1", True),
        (_nat64("64:ff9b:1::", 48, "127.0.0.1"), False),
        (_nat64("64:ff9b:1::", 56, "10.1.1.1"), False),
        (_nat64("64:ff9b:1::", 64, "169.254.169.254"), False),
        (_nat64("64:ff9b:1::", 96, "127.0.0.1"), False),
        (_nat64("64:ff9b:1::", 96, "192.0.2.1"), True),
        (_nat64("64:ff9b:1::", 48, "192.0.2.1"), True),
        ("2001:0:a01:101:0:0:0:1", False),  # Teredo with our address as its server
        ("2001:0:c000:201:0:0:80ff:fffe", False),  # and 127.0.0.1 as its client
        ("2001:db8::5efe:10.1.1.1", False),
        ("2001:db8::200:5efe:127.0.0.1", False),
        ("2001:db8::5efe:192.0.2.1", True),
    ],
)
def test_addresses(address: str, allowed: bool) -> None:
    assert judge_address(address, allow_loopback=False, own=_own) is allowed


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_where_it_was_allowed(address: str) -> None:
    assert judge_address(address, allow_loopback=True, own=lambda _: True)


@pytest.mark.parametrize("address", ["10.1.1.1", "2002:7f00:1::1", "64:ff9b::127.0.0.1"])
def test_nothing_else_is_allowed_with_it(address: str) -> None:
    assert not judge_address(address, allow_loopback=True, own=_own)


@given(st.ip_addresses(v=6))
def test_any_address_is_judged(address: ipaddress.IPv6Address) -> None:
    allowed = judge_address(str(address), allow_loopback=False, own=lambda _: False)
    if address.is_loopback or address.is_link_local or address.is_multicast:
        assert not allowed
    assert not judge_address(str(address), allow_loopback=False, own=lambda _: True)


def _addresses_here() -> list[Address]:
    """All of this machine's, from the kernel's tables of local routes."""
    found: list[Address] = []
    four = Path("/proc/net/fib_trie").read_text()
    for text in re.findall(r"\|-- ([\d.]+)\n +/32 host LOCAL", four):
        found.append(ipaddress.ip_address(text))
    six = Path("/proc/net/if_inet6")
    if six.exists():
        for line in six.read_text().splitlines():
            found.append(ipaddress.IPv6Address(bytes.fromhex(line.split()[0])))
    return found


def test_the_kernel_knows_which_addresses_are_its_own() -> None:
    here = _addresses_here()
    assert ipaddress.ip_address("127.0.0.1") in here
    for address in here:
        assert stays_here(address), address
        assert not judge_address(str(address), allow_loopback=False)
    assert stays_here(ipaddress.ip_address("127.200.1.1"))
    assert stays_here(ipaddress.ip_address("255.255.255.255"))
    for other in ("192.0.2.1", "198.51.100.7", "2001:db8::1"):
        assert not stays_here(ipaddress.ip_address(other))
