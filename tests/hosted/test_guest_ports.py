"""A guest's port in a real kernel: what arrives elsewhere of what the guest sends."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator

import pytest

from tests.framework import frames as f
from tests.framework.guest_frames import SCENE, forbidden, ordinary
from tests.framework.guest_ports import GuestPorts

ADDRESSES = (f"{SCENE.host4}/24", f"{SCENE.host6}/64")
EVERYWHERE = ["host", "other", "uplink"]


@pytest.fixture(scope="module")
def ports() -> Iterator[GuestPorts]:
    with GuestPorts() as ports:
        for address in ADDRESSES:
            ports.ask(do="add_address", address=address)
        ports.ask(do="renew")
        yield ports


def test_ordinary_traffic_reaches_everybody(ports: GuestPorts) -> None:
    sent = ordinary()
    arrived = ports.send(sent)
    for what, sides in arrived.items():
        group = sent[what][0] & 1
        assert sides == (EVERYWHERE if group else ["uplink"]), what


def test_forbidden_frames_reach_nobody(ports: GuestPorts) -> None:
    arrived = ports.send(forbidden())
    assert {what: sides for what, sides in arrived.items() if sides} == {}


def test_the_same_frames_from_the_uplink_arrive(ports: GuestPorts) -> None:
    """So that the test above shows the filter, and not a wire that leads nowhere."""
    sent = forbidden()
    names = ("RA", "DHCP answer", "DHCPv6 answer", "NA of the host", "LLDP, broadcast")
    arrived = ports.send({name: sent[name] for name in names}, origin="uplink")
    assert all("host" in sides and "other" in sides for sides in arrived.values()), arrived


def test_a_guest_gives_the_host_no_address_and_the_uplink_does(ports: GuestPorts) -> None:
    def prefixes() -> set[str]:
        networks = (
            ipaddress.ip_interface(a).network for a in ports.ask(do="addresses")["addresses"]
        )
        return {str(network) for network in networks}

    def offer(prefix: str) -> dict[str, bytes]:
        packet = f.router_advertisement(SCENE.guest_local, SCENE.guest, prefix)
        return {"RA": f.ethernet(SCENE.guest, f.ALL_NODES, 0x86DD, packet)}

    ports.send(offer("fd68::/64"))
    station = f.router_advertisement("fe80::20", SCENE.station, "fd67::/64")
    ports.send({"RA": f.ethernet(SCENE.station, f.ALL_NODES, 0x86DD, station)}, origin="uplink")
    deadline = time.monotonic() + 10
    while "fd67::/64" not in prefixes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "fd67::/64" in prefixes()
    assert "fd68::/64" not in prefixes()


def test_frames_for_others_are_not_heard(ports: GuestPorts) -> None:
    """Neither for an address that the switch doesn't know, nor for the other guest's."""
    unknown = f.ethernet(SCENE.station, "02:00:00:00:99:99", 0x88B5, b"unknown")
    to_other = f.ethernet(SCENE.station, ports.other, 0x88B5, b"for the other")
    arrived = ports.send({"unknown": unknown, "other": to_other}, origin="uplink")
    assert arrived == {"unknown": [], "other": ["other"]}


def test_an_address_can_not_be_taken_away(ports: GuestPorts) -> None:
    """Neither by another guest nor from beyond the uplink."""
    claim = f.ethernet(SCENE.guest, f.BROADCAST, 0x88B5, b"it is me")
    assert ports.send({"claim": claim}, origin="other") == {"claim": []}
    ports.send({"claim": claim}, origin="uplink")
    to_guest = f.ethernet(ports.other, SCENE.guest, 0x88B5, b"for the guest")
    assert ports.send({"to": to_guest}, origin="other") == {"to": ["guest"]}


def test_a_new_address_of_the_host_is_protected_once_it_is_known(ports: GuestPorts) -> None:
    packet = f.nd_advertisement(SCENE.guest6, "fd09::77", SCENE.guest)
    claim = {"NA": f.ethernet(SCENE.guest, f.ALL_NODES, 0x86DD, packet)}
    assert ports.send(claim) == {"NA": EVERYWHERE}
    ports.ask(do="add_address", address="fd09::77/64")
    ports.ask(do="renew")
    assert ports.send(claim) == {"NA": []}


def test_a_port_is_protected_again_by_the_next_vmkernel(ports: GuestPorts) -> None:
    ports.ask(do="strip")
    assert not ports.ask(do="filtered")["filtered"]
    ports.ask(do="adopt", mac=SCENE.guest)
    assert ports.ask(do="filtered")["filtered"]
    assert not any(ports.send(forbidden()).values())


def test_a_card_with_the_hosts_address_is_refused(ports: GuestPorts) -> None:
    assert "which is this host's" in ports.ask(do="plug", mac=SCENE.host)["error"]
    assert "tap" in ports.ask(do="plug", mac="52:54:00:6d:69:03")
