"""What a guest may send through its port by default, and what it may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.framework import frames as f

__all__ = ["SCENE", "Scene", "forbidden", "ordinary"]


@dataclass(frozen=True)
class Scene:
    """A switch with a host, a guest and a station beyond the uplink."""

    host: str = "02:00:00:00:00:10"
    guest: str = "52:54:00:6d:69:01"
    station: str = "02:00:00:00:00:20"
    host4: str = "10.9.0.1"
    guest4: str = "10.9.0.7"
    station4: str = "10.9.0.20"
    host6: str = "fd09::1"
    guest6: str = "fd09::7"
    station6: str = "fd09::20"
    guest_local: str = "fe80::5054:ff:fe6d:6901"
    host_local: str = "fe80::ff:fe00:10"


SCENE: Final = Scene()
_ALL_NODES6 = "ff02::1"


def ordinary(s: Scene = SCENE) -> dict[str, bytes]:
    """Frames of a well-behaved guest, by what they are."""
    to4 = (s.guest4, s.station4)
    return {
        "ARP request": f.arp(s.guest, 1, (s.guest, s.guest4), (_NO_MAC, s.station4)),
        "ARP request for the host": f.arp(s.guest, 1, (s.guest, s.guest4), (_NO_MAC, s.host4)),
        "ARP answer": f.arp(s.guest, 2, (s.guest, s.guest4), (s.station, s.station4), to=s.station),
        "ARP probe": f.arp(s.guest, 1, (s.guest, "0.0.0.0"), (_NO_MAC, s.guest4)),
        "gratuitous ARP": f.arp(s.guest, 1, (s.guest, s.guest4), (_NO_MAC, s.guest4)),
        "DHCP discover": _ip4(
            s, f.ipv4("0.0.0.0", "255.255.255.255", 17, f.udp(68, 67, b"d" * 240))
        ),
        "DHCP request, unicast": _ip4(s, f.ipv4(*to4, 17, f.udp(68, 67, b"r"))),
        "DNS query": _ip4(s, f.ipv4(*to4, 17, f.udp(40000, 53, b"q"))),
        "TCP": _ip4(s, f.ipv4(*to4, 6, b"\x80\x00\x01\xbb" + bytes(16))),
        "ping": _ip4(s, f.ipv4(*to4, 1, f.icmp(8))),
        "IGMP report": _ip4(s, f.ipv4(s.guest4, "224.0.0.251", 2, b"\x16" + bytes(7))),
        "IPv4 with options": _ip4(s, f.ipv4(*to4, 17, f.udp(9, 9), options=b"\x01" * 8)),
        "a later fragment": _ip4(s, f.ipv4(*to4, 17, f.udp(67, 68), fragment_field=100)),
        "a large frame": _ip4(s, f.ipv4(*to4, 6, bytes(1400))),
        "another protocol": f.ethernet(s.guest, f.BROADCAST, 0x88B5, b"experimental"),
        "the announcement of a migration": f.ethernet(s.guest, f.BROADCAST, 0x8035, bytes(28)),
        "neighbour solicitation": _ip6(s, f.nd_solicitation(s.guest6, s.station6, s.guest)),
        "solicitation of the host": _ip6(s, f.nd_solicitation(s.guest6, s.host6, s.guest)),
        "duplicate detection": _ip6(s, f.nd_solicitation("::", s.guest6)),
        "neighbour advertisement": _ip6(s, f.nd_advertisement(s.guest6, s.guest6, s.guest)),
        "router solicitation": _icmp6(s, s.guest_local, "ff02::2", 133, bytes(4)),
        "ping6": _icmp6(s, s.guest6, s.station6, 128, bytes(4)),
        "MLD report": _ip6(
            s,
            f.ipv6(
                s.guest_local,
                "ff02::16",
                0,
                f.extension(58, f.icmpv6(s.guest_local, "ff02::16", 143, bytes(4)), units=0),
            ),
        ),
        "DHCPv6 solicit": _udp6(s, 546, 547),
        "DNS over IPv6": _udp6(s, 40000, 53),
        "TCP over IPv6": _ip6(s, f.ipv6(s.guest6, s.station6, 6, bytes(20))),
        "no next header": _ip6(s, f.ipv6(s.guest6, s.station6, 59, bytes(8))),
        "a later fragment, IPv6": _ip6(
            s, f.ipv6(s.guest6, s.station6, 44, f.fragment(58, b"\x86" + bytes(7), offset=64))
        ),
        "a fragmented datagram": _ip6(
            s,
            f.ipv6(s.guest6, s.station6, 44, f.fragment(17, f.udp(9, 9, bytes(64)), more=True)),
        ),
        "IPsec": _ip6(s, f.ipv6(s.guest6, s.station6, 50, bytes(32))),
    }


def forbidden(s: Scene = SCENE) -> dict[str, bytes]:
    """Frames that must not leave a guest's port, by what they are."""
    ra = f.router_advertisement(s.guest_local, s.guest, "fd66::/64")
    message = f.icmpv6(s.guest_local, _ALL_NODES6, 134, ra[44:])
    answer = f.udp(67, 68, b"o" * 240)
    claim = f.nd_advertisement(s.guest6, s.host6, s.guest)
    plain = _ip4(s, f.ipv4(s.guest4, s.station4, 17, f.udp(9, 9)))

    def chained(*headers: int, last: bytes = message, upper: int = 58) -> bytes:
        """The RA behind extension headers of these numbers."""
        payload, following = last, upper
        for kind in reversed(headers):
            payload = (
                f.fragment(following, payload) if kind == 44 else f.extension(following, payload)
            )
            following = kind
        return _ip6(s, f.ipv6(s.guest_local, _ALL_NODES6, following, payload))

    return {
        # Addresses that are not the guest's.
        "from another card": f.ethernet("52:54:00:6d:69:99", f.BROADCAST, 0x88B5, b"x"),
        "from the host's address": f.ethernet(s.host, f.BROADCAST, 0x88B5, b"x"),
        "from a group": f.ethernet("01:00:5e:00:00:01", f.BROADCAST, 0x88B5, b"x"),
        "from no address": f.ethernet("00:00:00:00:00:00", f.BROADCAST, 0x88B5, b"x"),
        "from all addresses": f.ethernet(f.BROADCAST, f.BROADCAST, 0x88B5, b"x"),
        "from an address that differs at its start": f.ethernet(
            "53:55" + s.guest[5:], f.BROADCAST, 0x88B5, b"x"
        ),
        # Control frames of switches.
        "BPDU": _llc(s, "01:80:c2:00:00:00", b"\x42\x42\x03" + bytes(35)),
        "BPDU to another address": _llc(s, s.station, b"\x42\x42\x03" + bytes(35)),
        "BPDU of service providers": _llc(s, "01:80:c2:00:00:08", b"\x42\x42\x03" + bytes(35)),
        "pause": f.ethernet(s.guest, "01:80:c2:00:00:01", 0x8808, b"\x00\x01\xff\xff"),
        "pause, unicast": f.ethernet(s.guest, s.station, 0x8808, b"\x00\x01\xff\xff"),
        "LACP": f.ethernet(s.guest, "01:80:c2:00:00:02", 0x8809, b"\x01\x01"),
        "LACP, unicast": f.ethernet(s.guest, s.host, 0x8809, b"\x01\x01"),
        "EAPOL": f.ethernet(s.guest, "01:80:c2:00:00:03", 0x888E, b"\x01\x00"),
        "LLDP": f.ethernet(s.guest, "01:80:c2:00:00:0e", 0x88CC, b"\x02\x07"),
        "LLDP, broadcast": f.ethernet(s.guest, f.BROADCAST, 0x88CC, b"\x02\x07"),
        "MVRP": f.ethernet(s.guest, "01:80:c2:00:00:21", 0x88F5, b"\x00"),
        "GARP": _llc(s, "01:80:c2:00:00:20", b"\x42\x42\x03" + bytes(10)),
        "CDP": _llc(s, "01:00:0c:cc:cc:cc", b"\xaa\xaa\x03\x00\x00\x0c\x20\x00" + bytes(20)),
        "PVST+": _llc(s, "01:00:0c:cc:cc:cd", b"\xaa\xaa\x03\x00\x00\x0c\x01\x0b" + bytes(20)),
        # What hides the rest from filters.
        "tagged": f.vlan(plain, 1),
        "tagged with a priority": f.vlan(plain, 0xE000),
        "tagged for another network": f.vlan(plain, 20),
        "tagged twice": f.vlan(f.vlan(plain, 20), 1),
        "tagged by a provider": f.vlan(plain, 1, 0x88A8),
        "RA, tagged with a priority": f.vlan(_ip6(s, ra), 0),
        "RA as LLC/SNAP": _llc(s, f.ALL_NODES, b"\xaa\xaa\x03\x00\x00\x00\x86\xdd" + ra),
        "a frame without an end": f.ethernet(s.guest, f.BROADCAST, 0x0806, b"\0\x01", pad=False),
        "IPv4 of version 6": _ip4(
            s, f.ipv4(s.guest4, s.station4, 17, answer, version_and_length=0x65)
        ),
        "IPv4 with a short header": _ip4(
            s, f.ipv4(s.guest4, s.station4, 17, answer, version_and_length=0x44)
        ),
        # Routers and servers.
        "RA": _ip6(s, ra),
        "RA to one": f.ethernet(s.guest, s.host, 0x86DD, ra),
        "RA behind hop-by-hop options": chained(0),
        "RA behind destination options": chained(60),
        "RA behind a routing header": chained(43),
        "RA behind a fragment header": chained(44),
        "RA behind three headers": chained(0, 60, 44),
        "RA behind eight headers": chained(*[60] * 8),
        "RA behind nine headers": chained(*[60] * 9),
        "RA behind authentication": _ip6(
            s,
            f.ipv6(s.guest_local, _ALL_NODES6, 51, b"\x3a\x01" + bytes(10) + message),
        ),
        "a first fragment that ends in the options": _ip6(
            s,
            f.ipv6(
                s.guest_local,
                _ALL_NODES6,
                44,
                f.fragment(60, b"\x3a\x00\x01\x04" + bytes(4), more=True),
            )
            + b"\x80" * 24,
        ),
        "a first fragment whose options are too long": _ip6(
            s, f.ipv6(s.guest_local, _ALL_NODES6, 44, f.fragment(60, b"\x3a\x20" + bytes(6)))
        ),
        "redirect, IPv6": _icmp6(s, s.guest_local, _ALL_NODES6, 137, bytes(36)),
        "MLD query": chained(
            0, last=f.icmpv6(s.guest_local, _ALL_NODES6, 130, bytes(20)), upper=58
        ),
        "DHCPv6 answer": _udp6(s, 547, 546),
        "DHCPv6 answer from another port": _udp6(s, 9, 546),
        "DHCPv6 answer behind options": _ip6(
            s, f.ipv6(s.guest_local, s.host_local, 60, f.extension(17, f.udp(547, 546, b"a")))
        ),
        "DHCP answer": _ip4(s, f.ipv4(s.guest4, "255.255.255.255", 17, answer)),
        "DHCP answer from another port": _ip4(s, f.ipv4(s.guest4, s.host4, 17, f.udp(9, 68, b"o"))),
        "DHCP answer with options": _ip4(
            s, f.ipv4(s.guest4, s.host4, 17, answer, options=b"\x01" * 40)
        ),
        "DHCP answer, first fragment": _ip4(
            s, f.ipv4(s.guest4, s.host4, 17, answer, fragment_field=0x2000)
        ),
        "redirect": _ip4(s, f.ipv4(s.guest4, s.host4, 1, f.icmp(5, 1, bytes(32)))),
        "router discovery": _ip4(s, f.ipv4(s.guest4, s.host4, 1, f.icmp(9))),
        "IGMP query": _ip4(s, f.ipv4(s.guest4, "224.0.0.1", 2, b"\x11" + bytes(7))),
        # Claims of the host's addresses.
        "ARP answer for the host": f.arp(
            s.guest, 2, (s.guest, s.host4), (s.station, s.station4), to=s.station
        ),
        "gratuitous ARP of the host": f.arp(s.guest, 1, (s.guest, s.host4), (_NO_MAC, s.host4)),
        "ARP with another card inside": f.arp(
            s.guest, 2, ("52:54:00:6d:69:99", s.guest4), (s.station, s.station4)
        ),
        "ARP of another kind": f.ethernet(s.guest, f.BROADCAST, 0x0806, bytes(28)),
        "from the host's IPv4 address": _ip4(s, f.ipv4(s.host4, s.station4, 17, f.udp(9, 9))),
        "from the host's IPv6 address": _ip6(s, f.ipv6(s.host6, s.station6, 59, b"")),
        "from the host's local address": _ip6(s, f.ipv6(s.host_local, s.station6, 59, b"")),
        "NA of the host": _ip6(s, claim),
        "NA of the host's local address": _ip6(
            s, f.nd_advertisement(s.guest6, s.host_local, s.guest)
        ),
        "NA of an address that the host will make": _ip6(
            s, f.nd_advertisement(s.guest6, "2001:db8:7::ff:fe00:10", s.guest)
        ),
        "NA of the host behind options": _ip6(
            s, f.ipv6(s.guest6, _ALL_NODES6, 60, f.extension(58, claim[40:]))
        ),
        "NA in a fragment": _ip6(
            s,
            f.ipv6(
                s.guest6,
                _ALL_NODES6,
                44,
                f.fragment(58, f.nd_advertisement(s.guest6, s.guest6, s.guest)[40:]),
            ),
        ),
        "duplicate detection of the host's address": _ip6(s, f.nd_solicitation("::", s.host6)),
        "duplicate detection of what the host will make": _ip6(
            s, f.nd_solicitation("::", "2001:db8:7::ff:fe00:10")
        ),
        "NA that ends too early": _ip6(s, f.ipv6(s.guest6, _ALL_NODES6, 58, claim[40:56])),
    }


_NO_MAC = "00:00:00:00:00:00"


def _ip4(s: Scene, packet: bytes) -> bytes:
    return f.ethernet(s.guest, f.BROADCAST, 0x0800, packet)


def _ip6(s: Scene, packet: bytes) -> bytes:
    return f.ethernet(s.guest, f.ALL_NODES, 0x86DD, packet)


def _icmp6(s: Scene, source: str, destination: str, kind: int, rest: bytes) -> bytes:
    return _ip6(s, f.ipv6(source, destination, 58, f.icmpv6(source, destination, kind, rest)))


def _udp6(s: Scene, source_port: int, destination_port: int) -> bytes:
    return _ip6(
        s, f.ipv6(s.guest_local, "ff02::1:2", 17, f.udp(source_port, destination_port, b"data"))
    )


def _llc(s: Scene, destination: str, body: bytes) -> bytes:
    return f.ethernet(s.guest, destination, len(body), body)
