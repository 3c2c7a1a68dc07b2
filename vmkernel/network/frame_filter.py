"""The filter of a guest's port, as a classic BPF program that the kernel runs on every frame.

A frame that the program accepts gives ACCEPT; 0 means that it is dropped. A load beyond the
end of a frame ends a classic program with 0, so whatever is too short to be judged is dropped.

    tagged, from a foreign address, to a switch's control address    dropped
    802.3 length instead of a type (LLC: hides IP from filters)       dropped
    pause, LACP, LLDP, EAPOL and their kind                           dropped
    ARP      the card's own address; never an address of the host
    IPv4     first fragments: no DHCP server, no redirect, no IGMP query
    IPv6     every extension header is followed (RFC 7113: what can't be followed is dropped):
             no RA, no redirect, no MLD query, no DHCPv6 server, no claim of the host's
             addresses (NA, and the NS of duplicate address detection), no fragmented ND
    others   accepted
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from itertools import pairwise

from vmkernel.network.policy import HostIdentity, Network, PortPolicy, interface_identifier

__all__ = ["ACCEPT", "Instruction", "compile_filter"]

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, operand."""

ACCEPT = 0xFFFFFFFF
HOST_ADDRESSES_MAX = 64
"""A host has a handful; a program has at most 4,096 instructions, and every frame pays for each."""
_HEADERS_MAX = 8
"""Extension headers followed; real packets have at most two or three."""

# Opcodes (linux/bpf_common.h): class | size or operation | mode or source.
_LD_W, _LD_H, _LD_B = 0x20, 0x28, 0x30
_LD_W_X, _LD_H_X, _LD_B_X = 0x40, 0x48, 0x50
_LD_MEM, _LDX_MEM, _LDX_IMM, _LDX_IP_LENGTH = 0x60, 0x61, 0x01, 0xB1
_ST, _STX = 0x02, 0x03
_AND, _ADD, _LSH, _ADD_X = 0x54, 0x04, 0x64, 0x0C
_JA, _JEQ, _JGT, _JGE, _JGT_X, _JSET = 0x05, 0x15, 0x25, 0x35, 0x2D, 0x45
_TAX, _TXA = 0x07, 0x87
_LD_IMM, _RET = 0x00, 0x06

_VLAN_TAG_PRESENT = (-0x1000 + 48) & 0xFFFFFFFF
"""An ancillary load: the kernel has taken the tag off the frame by then."""

_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_TYPES_MIN = 0x600
_CONTROL_TYPES = (
    (0x8100, "a VLAN tag below another one"),
    (0x88A8, "a service provider's VLAN tag"),
    (0x9100, "an old form of that tag"),
    (0x8808, "pause frames"),
    (0x8809, "LACP and other slow protocols"),
    (0x88CC, "LLDP"),
    (0x888E, "EAPOL"),
    (0x88F5, "MVRP"),
    (0x88F6, "MMRP"),
    (0x8902, "connectivity fault management"),
)
_ETHERNET = 14
_IPV6_PAYLOAD = _ETHERNET + 40
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _OPTIONS = 0, 43, 44, 51, 60
_LENGTH_IN_EIGHTS = (_HOP_BY_HOP, _ROUTING, _OPTIONS, 135, 139, 140)
"""Headers whose second octet counts further units of eight octets; the last three: mobility, host
identity, shim6."""
_ICMP, _IGMP, _UDP, _ICMPV6 = 1, 2, 17, 58
_ICMP_REDIRECT, _ICMP_ROUTER, _IGMP_QUERY = 5, 9, 0x11
_MLD_QUERY, _RA, _NS, _NA, _REDIRECT = 130, 134, 135, 136, 137
_ND_FIRST = 133
_DHCP_SERVER, _DHCP_CLIENT, _DHCPV6_CLIENT, _DHCPV6_SERVER = 67, 68, 546, 547
_NEXT, _END, _FRAGMENTED = 0, 1, 2
"""Scratch cells: the next header's number, the packet's end, whether it is a fragment."""


def compile_filter(policy: PortPolicy, host: HostIdentity) -> tuple[Instruction, ...]:
    """The program for a port. ValueError if the host has more addresses than fit."""
    if len(_of(4, host)) + len(_of(6, host)) > HOST_ADDRESSES_MAX:
        raise ValueError(f"a host with more than {HOST_ADDRESSES_MAX} addresses")
    code = _Code()
    _ethernet(code, policy, host)
    code.load(_LD_H, 12)
    for kind, _ in _CONTROL_TYPES:
        code.jump(_JEQ, kind, "drop")
    code.jump(_JEQ, _ARP, "arp")
    code.jump(_JEQ, _IPV4, "ipv4")
    code.jump(_JEQ, _IPV6, "ipv6")
    code.jump(_JGE, _TYPES_MIN, "accept")
    code.go("drop")
    _arp(code, policy, host)
    _ipv4(code, policy, host)
    _ipv6(code, policy, host)
    code.label("drop")
    code.put(_RET, 0)
    code.label("accept")
    code.put(_RET, ACCEPT)
    return code.assemble()


def _ethernet(code: _Code, policy: PortPolicy, host: HostIdentity) -> None:
    code.load(_LD_W, _VLAN_TAG_PRESENT)
    code.jump(_JGT, 0, "drop")
    if policy.forged_transmits:
        code.load(_LD_B, 6)
        code.jump(_JSET, 1, "drop")
        for mac in sorted(host.macs):
            code.if_bytes(6, _mac(mac), "drop")
    else:
        code.unless_bytes(6, _mac(policy.mac), "drop")
    for start, value, mask in (
        (0x0180, 0xC2000000, 0xFFFFFFD0),  # 01:80:c2:00:00:00 to :0f and :20 to :2f
        (0x0100, 0x0CCCCCC0, 0xFFFFFFF0),  # 01:00:0c:cc:cc:c0 to :cf: CDP, VTP, PVST+
    ):
        other = code.fresh()
        code.load(_LD_H, 0)
        code.unless(_JEQ, start, other)
        code.load(_LD_W, 2)
        code.put(_AND, mask)
        code.jump(_JEQ, value, "drop")
        code.label(other)


def _arp(code: _Code, policy: PortPolicy, host: HostIdentity) -> None:
    code.label("arp")
    code.unless_bytes(14, bytes.fromhex("000108000604"), "drop")
    if not policy.forged_transmits:
        code.unless_bytes(22, _mac(policy.mac), "drop")
    for address in _of(4, host):
        code.if_bytes(28, address, "drop")
    _only_from(code, 28, 4, policy, (bytes(4),))
    code.go("accept")


def _ipv4(code: _Code, policy: PortPolicy, host: HostIdentity) -> None:
    code.label("ipv4")
    code.load(_LD_B, 14)
    code.put(_AND, 0xF0)
    code.unless(_JEQ, 0x40, "drop")
    code.load(_LD_B, 14)
    code.put(_AND, 0x0F)
    code.unless(_JGE, 5, "drop")
    for address in _of(4, host):
        code.if_bytes(26, address, "drop")
    _only_from(code, 26, 4, policy, (bytes(4),))
    code.load(_LD_H, 20)
    code.jump(_JSET, 0x1FFF, "accept")  # a later fragment: ports and types were in the first
    code.put(_LDX_IP_LENGTH, _ETHERNET)
    code.load(_LD_B, 23)
    code.jump(_JEQ, _UDP, "udp4")
    if not policy.router:
        code.jump(_JEQ, _ICMP, "icmp4")
        code.jump(_JEQ, _IGMP, "igmp")
    code.go("accept")
    code.label("udp4")
    _no_server(code, policy, _DHCP_SERVER, _DHCP_CLIENT, _ETHERNET)
    code.go("accept")
    code.label("icmp4")
    code.load(_LD_B_X, _ETHERNET)
    code.jump(_JEQ, _ICMP_REDIRECT, "drop")
    code.jump(_JEQ, _ICMP_ROUTER, "drop")
    code.go("accept")
    code.label("igmp")
    code.load(_LD_B_X, _ETHERNET)
    code.jump(_JEQ, _IGMP_QUERY, "drop")
    code.go("accept")


def _ipv6(code: _Code, policy: PortPolicy, host: HostIdentity) -> None:
    code.label("ipv6")
    code.load(_LD_B, 14)
    code.put(_AND, 0xF0)
    code.unless(_JEQ, 0x60, "drop")
    for address in _of(6, host):
        code.if_bytes(22, address, "drop")
    for mac in sorted(host.macs):
        code.if_bytes(30, interface_identifier(mac), "drop")
    link_local = ipaddress.IPv6Network("fe80::/10")
    _only_from(code, 22, 6, policy, (bytes(16),), link_local)
    code.put(_LD_IMM, 0)
    code.put(_ST, _FRAGMENTED)
    code.load(_LD_H, 18)
    code.put(_ADD, _IPV6_PAYLOAD)
    code.put(_ST, _END)
    code.put(_LDX_IMM, _IPV6_PAYLOAD)
    code.load(_LD_B, 20)
    for _ in range(_HEADERS_MAX):
        _next_header(code)
    for kind in (*_LENGTH_IN_EIGHTS, _FRAGMENT, _AUTHENTICATION):
        code.jump(_JEQ, kind, "drop")  # too many to follow
    code.label("upper")
    code.jump(_JEQ, _UDP, "udp6")
    code.jump(_JEQ, _ICMPV6, "icmp6")
    code.go("accept")
    code.label("udp6")
    _inside(code, 8)
    _no_server(code, policy, _DHCPV6_SERVER, _DHCPV6_CLIENT, 0)
    code.go("accept")
    _icmpv6(code, policy, host)


def _next_header(code: _Code) -> None:
    """One step along the chain: A holds the number of the header that X points to."""
    eights, fragment, authentication, done = (code.fresh() for _ in range(4))
    for kind in _LENGTH_IN_EIGHTS:
        code.jump(_JEQ, kind, eights)
    code.jump(_JEQ, _FRAGMENT, fragment)
    code.jump(_JEQ, _AUTHENTICATION, authentication)
    code.go("upper")
    for label, more, shift in ((eights, 1, 3), (authentication, 2, 2)):
        code.label(label)
        code.load(_LD_B_X, 0)
        code.put(_ST, _NEXT)
        code.load(_LD_B_X, 1)
        code.put(_ADD, more)
        code.put(_LSH, shift)
        code.put(_ADD_X, 0)
        code.put(_TAX, 0)
        code.load(_LD_MEM, _NEXT)
        code.go(done)
    code.label(fragment)
    code.load(_LD_H_X, 2)
    code.jump(_JSET, 0xFFF8, "accept")  # a later fragment
    code.put(_LD_IMM, 1)
    code.put(_ST, _FRAGMENTED)
    code.load(_LD_B_X, 0)
    code.put(_ST, _NEXT)
    code.put(_TXA, 0)
    code.put(_ADD, 8)
    code.put(_TAX, 0)
    code.load(_LD_MEM, _NEXT)
    code.label(done)


def _icmpv6(code: _Code, policy: PortPolicy, host: HostIdentity) -> None:
    code.label("icmp6")
    _inside(code, 8)
    code.load(_LD_B_X, 0)
    for kind in () if policy.router else (_RA, _REDIRECT, _MLD_QUERY):
        code.jump(_JEQ, kind, "drop")
    other, advertisement, unspecified, claim = (code.fresh() for _ in range(4))
    code.unless(_JGE, _ND_FIRST, "accept")
    code.jump(_JGT, _REDIRECT, "accept")
    code.put(_ST, _NEXT)
    code.load(_LD_MEM, _FRAGMENTED)
    code.jump(_JEQ, 1, "drop")
    code.load(_LD_MEM, _NEXT)
    code.jump(_JEQ, _NA, advertisement)
    code.jump(_JEQ, _NS, unspecified)
    code.go("accept")
    code.label(unspecified)
    code.unless_bytes(22, bytes(16), other)
    code.label(advertisement)
    code.go(claim)
    code.label(other)
    code.go("accept")
    code.label(claim)
    _inside(code, 24)
    for address in _of(6, host):
        code.if_bytes(8, address, "drop", indexed=True)
    for mac in sorted(host.macs):
        code.if_bytes(16, interface_identifier(mac), "drop", indexed=True)
    code.go("accept")


def _inside(code: _Code, count: int) -> None:
    """Drop a packet that ends before this many bytes from X: what follows is padding, which would
    hide the content of a later fragment.
    """
    code.put(_TXA, 0)
    code.put(_ADD, count)
    code.put(_STX, _NEXT)
    code.put(_LDX_MEM, _END)
    code.jump(_JGT_X, 0, "drop")
    code.put(_LDX_MEM, _NEXT)


def _no_server(code: _Code, policy: PortPolicy, server: int, client: int, offset: int) -> None:
    if policy.dhcp_server:
        return
    code.load(_LD_H_X, offset)
    code.jump(_JEQ, server, "drop")
    code.load(_LD_H_X, offset + 2)
    code.jump(_JEQ, client, "drop")


def _only_from(
    code: _Code,
    offset: int,
    version: int,
    policy: PortPolicy,
    besides: Iterable[bytes],
    *networks: Network,
) -> None:
    """Drop packets that are not from an address of the guest, if its addresses are known."""
    if not policy.addresses:
        return
    own = code.fresh()
    for raw in besides:
        code.if_bytes(offset, raw, own)
    for network in (*policy.addresses, *networks):
        if network.version == version:
            code.if_network(offset, network, own)
    code.go("drop")
    code.label(own)


def _of(version: int, host: HostIdentity) -> list[bytes]:
    """The host's addresses of a version, without those that its interface identifiers cover."""
    identifiers = {interface_identifier(mac) for mac in host.macs}
    return sorted(
        address.packed
        for address in host.addresses
        if address.version == version and (version == 4 or address.packed[8:] not in identifiers)
    )


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


class _Code:
    """Instructions with labels. A conditional jump reaches 255 instructions only, so each one
    jumps over an unconditional one, which reaches all."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int, str | None]] = []
        self._labels: dict[str, int] = {}
        self._fresh = 0

    def put(self, code: int, operand: int) -> None:
        self._code.append((code, 0, 0, operand, None))

    load = put

    def fresh(self) -> str:
        """A new label."""
        self._fresh += 1
        return f".{self._fresh}"

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def go(self, label: str) -> None:
        self._code.append((_JA, 0, 0, 0, label))

    def jump(self, test: int, operand: int, label: str) -> None:
        """Go there if A passes the test."""
        self._code.append((test, 0, 1, operand, None))
        self.go(label)

    def unless(self, test: int, operand: int, label: str) -> None:
        """Go there if A doesn't pass the test."""
        self._code.append((test, 1, 0, operand, None))
        self.go(label)

    def if_bytes(self, offset: int, value: bytes, label: str, *, indexed: bool = False) -> None:
        """Go there if the frame has these octets at that place."""
        other = self.fresh()
        self.unless_bytes(offset, value, other, indexed=indexed)
        self.go(label)
        self.label(other)

    def unless_bytes(self, offset: int, value: bytes, label: str, *, indexed: bool = False) -> None:
        """Go there if the frame has other octets at that place. The last ones are compared first:
        addresses differ there."""
        for start, end in reversed(_words(len(value))):
            size = {4: (_LD_W, _LD_W_X), 2: (_LD_H, _LD_H_X), 1: (_LD_B, _LD_B_X)}[end - start]
            self.load(size[indexed], offset + start)
            self.unless(_JEQ, int.from_bytes(value[start:end], "big"), label)

    def if_network(self, offset: int, network: Network, label: str) -> None:
        """Go there if the address at that place is in the network."""
        other = self.fresh()
        wanted, mask = network.network_address.packed, network.netmask.packed
        for start in range(0, len(wanted), 4):
            bits = int.from_bytes(mask[start : start + 4], "big")
            if bits:
                self.load(_LD_W, offset + start)
                self.put(_AND, bits)
                self.unless(_JEQ, int.from_bytes(wanted[start : start + 4], "big"), other)
        self.go(label)
        self.label(other)

    def assemble(self) -> tuple[Instruction, ...]:
        """The program, its unreachable instructions left in: the kernel drops them."""
        return tuple(
            (code, true, false, operand if label is None else self._labels[label] - place - 1)
            for place, (code, true, false, operand, label) in enumerate(self._code)
        )


def _words(length: int) -> Sequence[tuple[int, int]]:
    """The pieces of four, two and one octets that a comparison is made of."""
    edges = [0]
    while edges[-1] < length:
        left = length - edges[-1]
        edges.append(edges[-1] + (4 if left >= 4 else 2 if left >= 2 else 1))
    return list(pairwise(edges))
