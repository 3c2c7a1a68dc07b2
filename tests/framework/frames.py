"""Frames as a guest could make them, put together by hand."""

from __future__ import annotations

import ipaddress
import struct

__all__ = [
    "ALL_NODES",
    "BROADCAST",
    "arp",
    "checksum",
    "ethernet",
    "extension",
    "fragment",
    "group_mac",
    "icmp",
    "icmpv6",
    "ipv4",
    "ipv6",
    "mac",
    "nd_advertisement",
    "nd_solicitation",
    "router_advertisement",
    "udp",
    "vlan",
]

BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES = "33:33:00:00:00:01"
_ETHER = struct.Struct("!6s6sH")


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(
    source: str, destination: str, kind: int, payload: bytes, *, pad: bool = True
) -> bytes:
    """A frame, padded to Ethernet's least length."""
    frame = _ETHER.pack(mac(destination), mac(source), kind) + payload
    return frame.ljust(60, b"\0") if pad else frame


def vlan(frame: bytes, number: int, kind: int = 0x8100) -> bytes:
    """The frame with a tag."""
    return frame[:12] + struct.pack("!HH", kind, number) + frame[12:]


def arp(
    source: str,
    operation: int,
    sender: tuple[str, str],
    target: tuple[str, str],
    to: str = BROADCAST,
) -> bytes:
    """A request (1) or answer (2); sender and target are a hardware and an IPv4 address each."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    for hardware, address in (sender, target):
        body += mac(hardware) + ipaddress.IPv4Address(address).packed
    return ethernet(source, to, 0x0806, body)


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    fragment_field: int = 0,
    version_and_length: int | None = None,
) -> bytes:
    first = version_and_length or 0x40 | (5 + len(options) // 4)
    length = 20 + len(options) + len(payload)
    head = struct.pack("!BBHHHBBH", first, 0, length, 7, fragment_field, 64, protocol, 0)
    head += ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    head += options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(
    source_port: int, destination_port: int, payload: bytes = b"", between: bytes = b""
) -> bytes:
    """`between`: the addresses of the IPv6 packet, for the checksum; IPv4 needs none."""
    datagram = struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload
    if between:
        total = checksum(between + struct.pack("!II", len(datagram), 17) + datagram)
        datagram = datagram[:6] + struct.pack("!H", total or 0xFFFF) + datagram[8:]
    return datagram


def icmp(kind: int, code: int = 0, rest: bytes = bytes(4)) -> bytes:
    message = struct.pack("!BBH", kind, code, 0) + rest
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def ipv6(
    source: str, destination: str, next_header: int, payload: bytes, *, hops: int = 255
) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), next_header, hops)
    return head + _packed(source) + _packed(destination) + payload


def extension(next_header: int, payload: bytes, *, units: int = 0) -> bytes:
    """A hop-by-hop, routing or destination options header of padding, before a payload."""
    room = 6 + 8 * units
    padding = bytes([1, room - 2]) + bytes(room - 2)
    return bytes([next_header, units]) + padding + payload


def fragment(next_header: int, payload: bytes, *, offset: int = 0, more: bool = False) -> bytes:
    """A fragment header, its offset in octets, before a payload."""
    return struct.pack("!BBHI", next_header, 0, offset | more, 0x4D696361) + payload


def icmpv6(source: str, destination: str, kind: int, rest: bytes, code: int = 0) -> bytes:
    """An ICMPv6 message with its checksum for these addresses."""
    message = struct.pack("!BBH", kind, code, 0) + rest
    pseudo = _packed(source) + _packed(destination) + struct.pack("!II", len(message), 58)
    return message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]


def router_advertisement(source: str, hardware: str, prefix: str) -> bytes:
    """A packet that offers a prefix for addresses, a default route and a name server."""
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0)
    body += bytes([1, 1]) + mac(hardware)
    network = ipaddress.IPv6Network(prefix)
    body += struct.pack("!BBBBIII", 3, 4, network.prefixlen, 0xC0, 86400, 14400, 0)
    body += network.network_address.packed
    body += struct.pack("!BBHI", 25, 3, 0, 1800) + network[0x53].packed
    return ipv6(source, "ff02::1", 58, icmpv6(source, "ff02::1", 134, body))


def nd_advertisement(
    source: str, target: str, hardware: str, destination: str = "ff02::1"
) -> bytes:
    """The claim of an address, with `override`."""
    body = struct.pack("!I", 0x20000000) + _packed(target) + bytes([2, 1]) + mac(hardware)
    return ipv6(source, destination, 58, icmpv6(source, destination, 136, body))


def nd_solicitation(source: str, target: str, hardware: str | None = None) -> bytes:
    """A question for an address; without `hardware` and from `::`, that of duplicate detection."""
    destination = solicited(target)
    body = bytes(4) + _packed(target) + (bytes([1, 1]) + mac(hardware) if hardware else b"")
    return ipv6(source, destination, 58, icmpv6(source, destination, 135, body))


def solicited(address: str) -> str:
    """The multicast group in which an address is asked for."""
    tail = _packed(address)[-3:]
    return str(ipaddress.IPv6Address(bytes.fromhex("ff0200000000000000000001ff") + tail))


def group_mac(packet: bytes) -> str:
    """The hardware address that an IPv6 packet to a group goes to."""
    return ":".join(f"{octet:02x}" for octet in b"\x33\x33" + packet[36:40])


def _packed(address: str) -> bytes:
    return ipaddress.IPv6Address(address).packed
