"""The filter of a guest's port, run by a small interpreter of classic BPF."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.framework import frames as f
from tests.framework.guest_frames import SCENE, forbidden, ordinary
from vmkernel.network.frame_filter import (
    ACCEPT,
    HOST_ADDRESSES_MAX,
    Instruction,
    compile_filter,
)
from vmkernel.network.policy import HostIdentity, PortPolicy, interface_identifier

HOST = HostIdentity.of([SCENE.host], [f"{SCENE.host4}/24", f"{SCENE.host6}/64"])
POLICY = PortPolicy(SCENE.guest)
PROGRAM = compile_filter(POLICY, HOST)
_VLAN_TAG = 0xFFFFF030
MASK = 0xFFFFFFFF


def run(program: tuple[Instruction, ...], frame: bytes, steps_max: int = 4096) -> int:
    """What the kernel would return: classic BPF as linux/filter.h and net/core/filter.c have it.

    The kernel has taken the outer tag off before the program runs.
    """
    tagged = frame[12:14] in (b"\x81\x00", b"\x88\xa8")
    if tagged:
        frame = frame[:12] + frame[16:]
    a = x = place = 0
    cells = [0] * 16
    for _ in range(steps_max):
        code, true, false, k = program[place]
        place += 1
        if code in (0x20, 0x28, 0x30, 0x40, 0x48, 0x50):
            if k == _VLAN_TAG:
                a = int(tagged)
                continue
            size = {0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
            start = k + (x if code & 0x40 else 0)
            if start + size > len(frame):
                return 0
            a = int.from_bytes(frame[start : start + size], "big")
        elif code == 0xB1:
            if k >= len(frame):
                return 0
            x = 4 * (frame[k] & 0xF)
        elif code == 0x06:
            return k
        elif code == 0x05:
            place += k
        elif code in (0x15, 0x25, 0x35, 0x45, 0x2D):
            other = x if code & 0x08 else k
            passed = {
                0x10: a == other,
                0x20: a > other,
                0x30: a >= other,
                0x40: bool(a & other),
            }[code & 0xF0]
            place += true if passed else false
        elif code == 0x00:
            a = k
        elif code == 0x01:
            x = k
        elif code == 0x60:
            a = cells[k]
        elif code == 0x61:
            x = cells[k]
        elif code == 0x02:
            cells[k] = a
        elif code == 0x03:
            cells[k] = x
        elif code == 0x54:
            a &= k
        elif code == 0x04:
            a = (a + k) & MASK
        elif code == 0x0C:
            a = (a + x) & MASK
        elif code == 0x64:
            a = (a << k) & MASK
        elif code == 0x07:
            x = a
        elif code == 0x87:
            a = x
        else:
            raise AssertionError(f"instruction {code:#x}")
    raise AssertionError("the program does not end")


@pytest.mark.parametrize("what", ordinary())
def test_ordinary_traffic_passes(what: str) -> None:
    assert run(PROGRAM, ordinary()[what]) == ACCEPT


@pytest.mark.parametrize("what", forbidden())
def test_what_a_guest_must_not_send_is_dropped(what: str) -> None:
    assert run(PROGRAM, forbidden()[what]) == 0


@given(st.binary(max_size=120))
def test_only_the_cards_own_address_passes(frame: bytes) -> None:
    if run(PROGRAM, frame) == ACCEPT:
        assert frame[6:12] == f.mac(SCENE.guest)


@given(
    st.lists(st.sampled_from([0, 43, 44, 51, 60, 135, 139, 140]), max_size=12),
    st.integers(0, 3),
    st.integers(0, 80),
)
def test_no_chain_of_headers_hides_a_router(chain: list[int], units: int, cut: int) -> None:
    """Each chain either reaches the message, or can't be judged: both are dropped."""
    source = SCENE.guest_local
    payload = f.icmpv6(source, "ff02::1", 134, bytes(12))
    following = 58
    for kind in reversed(chain):
        if kind == 44:
            payload = f.fragment(following, payload)
        elif kind == 51:
            payload = bytes([following, 1]) + bytes(10) + payload
        else:
            payload = f.extension(following, payload, units=units)
        following = kind
    frame = f.ethernet(
        SCENE.guest, f.ALL_NODES, 0x86DD, f.ipv6(source, "ff02::1", following, payload)
    )
    assert run(PROGRAM, frame) == 0
    assert run(PROGRAM, frame[: max(14, len(frame) - cut)]) == 0


def test_a_guest_whose_addresses_are_known_speaks_from_them_alone() -> None:
    known = replace(
        POLICY,
        addresses=(
            ipaddress.ip_network(SCENE.guest4),
            ipaddress.ip_network("fd09::/120"),
        ),
    )
    program = compile_filter(known, HOST)
    for what, frame in ordinary().items():
        assert run(program, frame) == ACCEPT, what
    others = replace(SCENE, guest4="10.9.0.8", guest6="fd09::1:7")
    for what in ("ARP answer", "gratuitous ARP", "ping", "TCP", "ping6", "TCP over IPv6"):
        assert run(program, ordinary(others)[what]) == 0, what
    assert run(program, ordinary(others)["ARP probe"]) == ACCEPT


def test_a_bridge_in_the_guest_sends_from_other_addresses_but_not_the_hosts() -> None:
    program = compile_filter(replace(POLICY, forged_transmits=True), HOST)
    behind = replace(SCENE, guest="52:54:00:6d:69:99")
    assert all(run(program, frame) == ACCEPT for frame in ordinary(behind).values())
    still = {"from the host's address", "from a group", "from all addresses", "RA", "BPDU", "LLDP"}
    for what in still:
        assert run(program, forbidden()[what]) == 0, what
    assert run(program, forbidden()["from another card"]) == ACCEPT


def test_a_router_and_a_server_may_do_their_work_and_nothing_else() -> None:
    router = compile_filter(replace(POLICY, router=True), HOST)
    server = compile_filter(replace(POLICY, dhcp_server=True), HOST)
    sent = forbidden()
    for what in ("RA", "redirect", "redirect, IPv6", "IGMP query", "MLD query"):
        assert (run(router, sent[what]), run(server, sent[what])) == (ACCEPT, 0), what
    for what in ("DHCP answer", "DHCPv6 answer"):
        assert (run(router, sent[what]), run(server, sent[what])) == (0, ACCEPT), what
    for what in ("from another card", "NA of the host", "ARP answer for the host", "BPDU"):
        assert (run(router, sent[what]), run(server, sent[what])) == (0, 0), what


def test_addresses_that_the_host_makes_itself_need_no_place_of_their_own() -> None:
    prefixes = [f"2001:db8:{number:x}::ff:fe00:10" for number in range(1, 1000)]
    host = HostIdentity.of([SCENE.host], prefixes)
    assert len(compile_filter(POLICY, host)) < 1000
    many = [f"10.0.{number}.1" for number in range(HOST_ADDRESSES_MAX)]
    assert len(compile_filter(POLICY, HostIdentity.of([SCENE.host], many))) <= 4096
    many6 = [f"fd00:{number:x}::1" for number in range(HOST_ADDRESSES_MAX)]
    assert len(compile_filter(POLICY, HostIdentity.of([SCENE.host], many6))) <= 4096
    with pytest.raises(ValueError, match="addresses"):
        compile_filter(POLICY, HostIdentity.of([SCENE.host], [*many, "10.1.0.1"]))


def test_the_identifier_of_an_interface() -> None:
    assert interface_identifier("02:00:00:00:00:10").hex() == "000000fffe000010"
