"""A guest that plays router, server and host on the wire: who is taken in, and that ordinary
traffic goes on."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.framework import frames as f
from tests.framework.appliance import MERGE_PATCH, Appliance, UnexpectedAnswerError
from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.guest import GuestFiles
from tests.framework.guest.build import COMMAND_LINE
from tests.framework.guest_frames import SCENE, Scene, forbidden
from tests.framework.inside import plugged_in_with_agent, upload_boot_files
from tests.framework.variant import Agent

GIB = 1 << 30
DISK = "WIREDISK01"
MACS = {"evil": "52:54:00:6d:69:01", "good": "52:54:00:6d:69:02"}
PLUGGED = "52:54:00:6d:69:03"
BAD_PREFIX = "2001:db8:bad"
UNTOUCHED = (
    "/proc/net/route",
    "/etc/resolv.conf",
    "/run/systemd/netif/state",
)
SENT = (
    "from another card",
    "from the host's address",
    "BPDU",
    "LLDP, broadcast",
    "tagged with a priority",
    "RA as LLC/SNAP",
    "RA behind three headers",
    "redirect, IPv6",
    "DHCPv6 answer",
    "DHCP answer",
    "ARP answer for the host",
    "gratuitous ARP of the host",
    "NA of the host",
    "NA of the host's local address",
    "duplicate detection of the host's address",
)


@dataclass(frozen=True)
class Wire:
    """Two guests on the switch with the host, and a hand inside the host."""

    mica: Appliance
    agent: Agent
    scene: Scene

    def tell(self, vm: str, *lines: str) -> list[str]:
        """Send lines to a guest; what it answers to each."""
        with self.mica.console(vm) as console:
            return [console.ask(line, timeout_s=90) for line in lines]

    def send(self, vm: str, frames: Iterable[bytes], interface: str = "eth0") -> None:
        """Let a guest send frames; each has left it."""
        answers = self.tell(vm, *(f"frame {interface} {frame.hex()}" for frame in frames))
        assert all(answer.endswith(" sent") for answer in answers), answers

    def heard(self, octets: bytes) -> int:
        """How many of the frames that `good` has got since the last call hold these octets."""
        (answer,) = self.tell("good", f"heard {octets.hex()}")
        return int(answer.split()[0])

    def is_back(self) -> bool:
        """True once the API answers again and knows both guests."""
        with contextlib.suppress(UnexpectedAnswerError):
            return all(self.mica.vm_state(vm) == "running" for vm in MACS)
        return False

    def patch_nics(self, vm: str, nics: list[dict[str, Any]]) -> None:
        """Give a VM these cards."""
        answer = self.mica.call(
            "PATCH",
            f"/v1/vms/{vm}",
            json={"spec": {"nics": nics}},
            headers={"content-type": MERGE_PATCH},
        )
        if answer.status_code == 202:
            self.mica.settle(answer.json())

    def host_state(self) -> dict[str, Any]:
        """The host's addresses, routes and name servers."""
        links = self.mica.host()["links"]
        seen: dict[str, Any] = {link["name"]: sorted(link["addresses"]) for link in links}
        seen |= {path: self.agent.read(path) for path in UNTOUCHED}
        # Counters of use, and flags, are left out.
        routes = (line.split() for line in self.agent.read("/proc/net/ipv6_route").splitlines())
        return seen | {"routes": sorted((r[0], r[1], r[4], r[9]) for r in routes)}


@pytest.fixture(scope="module")
def wire(folder: Path, guest: GuestFiles) -> Iterator[Wire]:
    """Both guests run."""
    disk = Drive("main", blank_disk(folder / "main.img", 2 * GIB), Bus.VIRTIO, DISK)
    with plugged_in_with_agent(folder, disks=[disk]) as (appliance, agent):
        appliance.create_datastore("main", DISK)
        upload_boot_files(appliance, guest)
        for vm, mac in MACS.items():
            # What the evil one sends is then what it is told to send.
            cmdline = f"{COMMAND_LINE} ipv6.disable=1" if vm == "evil" else COMMAND_LINE
            boot = {"kernel": {"kernel": "kernel", "initrd": "initrd", "cmdline": cmdline}}
            appliance.create_vm(vm, firmware="bios", boot=boot, nics=[{"mac": mac}])
            appliance.start(vm)
            with appliance.console(vm) as console:
                console.expect("MICA GUEST UP", timeout_s=120, what=f"{vm} is up")
        (link,) = (x for x in appliance.host()["links"] if x["name"] == "vswitch0")
        (own4,) = (a.split("/")[0] for a in link["addresses"] if "." in a)
        local = next(a.split("/")[0] for a in link["addresses"] if a.startswith("fe80:"))
        own6 = next(
            (a.split("/")[0] for a in link["addresses"] if ":" in a and not a.startswith("fe80:")),
            local,
        )
        scene = replace(
            SCENE,
            host=link["mac"],
            guest=MACS["evil"],
            station=MACS["good"],
            host4=own4,
            host6=own6,
            host_local=local,
        )
        yield Wire(appliance, agent, scene)


def test_guests_get_addresses_and_reach_the_host(wire: Wire) -> None:
    """DHCP, ARP and TCP through the filter, of both guests."""
    for vm in MACS:
        (leased,) = wire.tell(vm, "net eth0")
        match = re.fullmatch(r"eth0 address (\S+) router \S+ server \S+", leased)
        assert match, leased
        assert match[1] != wire.scene.host4
        # The API says nothing of itself, and closes what says nothing to it.
        (drained,) = wire.tell(vm, f"drain {wire.scene.host4} 443")
        assert re.match(r"\d+", drained), drained


def test_a_guest_finds_the_host_by_ipv6(wire: Wire) -> None:
    """Neighbour discovery through the filter: a question is answered with the host's address."""
    wire.tell("good", "listen eth0")
    packet = f.nd_solicitation("fe80::5054:ff:fe6d:6902", wire.scene.host_local, MACS["good"])
    asked = f.ethernet(MACS["good"], f.group_mac(packet), 0x86DD, packet)
    wire.send("good", [asked])
    target = ipaddress.IPv6Address(wire.scene.host_local).packed
    claim = b"\x02\x01" + f.mac(wire.scene.host)
    wire.mica.machine.wait_for(
        "the host answers", lambda: wire.heard(target + claim) > 0, timeout_s=30
    )


def test_a_guest_changes_nothing_of_the_host_and_reaches_no_other(wire: Wire) -> None:
    before = wire.host_state()
    bad = forbidden(wire.scene)
    sent = [_offer(MACS["evil"]), *(bad[name] for name in SENT)]
    wire.tell("good", "listen eth0")
    for _ in range(3):
        wire.send("evil", sent)
    assert wire.heard(f.mac(MACS["evil"])) == 0
    after = wire.host_state()
    assert after == before
    assert BAD_PREFIX not in str(after)
    # Its own frames still pass.
    wire.send("evil", [f.ethernet(MACS["evil"], f.BROADCAST, 0x88B5, b"hello")])
    assert wire.heard(f.mac(MACS["evil"])) == 1


def test_a_card_that_is_plugged_in_is_filtered_too(wire: Wire) -> None:
    before = wire.host_state()
    had = wire.mica.get("/v1/vms/evil")["spec"]["nics"]
    wire.patch_nics("evil", [*had, {"mac": PLUGGED}])

    def has_it() -> bool:
        with wire.mica.console("evil") as console:
            position = console.news()
            console.send("report\n")
            end = console.expect("MICA GUEST UP", timeout_s=60, what="a report", after=position)[1]
            seen = [line.text for line in console.lines()[position:] if line.time_s <= end.time_s]
        return f"guest nic eth1 {PLUGGED}" in seen

    wire.mica.machine.wait_for("the guest has the card", has_it, timeout_s=60)
    wire.tell("evil", "net eth1")
    wire.tell("good", "listen eth0")
    wire.send("evil", [_offer(PLUGGED)], "eth1")
    wire.send("evil", [f.ethernet(PLUGGED, f.BROADCAST, 0x88B5, b"hello")], "eth1")
    assert wire.heard(f.mac(PLUGGED)) == 1, "the greeting alone"
    wire.patch_nics("evil", had)
    assert wire.host_state() == before


def test_the_next_vmkernel_protects_the_same_ports(wire: Wire) -> None:
    wire.agent.kill("mica-vmkernel.service")
    wire.mica.machine.wait_for("the vmkernel is back", wire.is_back, timeout_s=120)
    before = wire.host_state()
    wire.tell("good", "listen eth0")
    wire.send("evil", [_offer(MACS["evil"])])
    wire.send("evil", [f.ethernet(MACS["evil"], f.BROADCAST, 0x88B5, b"hello")])
    assert wire.heard(f.mac(MACS["evil"])) == 1
    assert wire.host_state() == before


def _offer(mac: str) -> bytes:
    """A router advertisement from a card."""
    packet = f.router_advertisement(SCENE.guest_local, mac, f"{BAD_PREFIX}::/64")
    return f.ethernet(mac, f.ALL_NODES, 0x86DD, packet)
