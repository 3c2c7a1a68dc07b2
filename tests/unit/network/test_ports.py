"""Ports of VMs: what can be asked for, and that nothing is left open where one can't be had."""

from __future__ import annotations

import asyncio
import os

import pytest

from vmkernel.model import ErrorCode, MicaError, NicModel, NicSpec, NicStatus
from vmkernel.network import BridgeNetwork, HostIdentity, NetworkPort, PortGroup, UserNetwork
from vmkernel.network import bridge as bridge_module

GROUPS = {
    "vm-network": PortGroup("vm-network", "vswitch0"),
    "dmz": PortGroup("dmz", "vswitch0", vlan=20),
}


class Switch:
    """What the host's interfaces would have been told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.joined: list[tuple[str, str]] = []
        self.vlans: list[tuple[str, int]] = []
        self.fds: list[int] = []
        self.vhost: OSError | None = None
        self.broken = False
        self.steps: list[tuple[str, str]] = []
        self.filters: dict[str, object] = {}
        self.unfilterable: OSError | None = None
        self.macs = {"02:00:00:00:00:10"}
        self.addresses = {"10.9.0.1"}
        monkeypatch.setattr(bridge_module, "open_tap", self.open_tap)
        monkeypatch.setattr(bridge_module, "open_vhost_net", self.open_vhost_net)
        monkeypatch.setattr(bridge_module, "join_bridge", self.join)
        monkeypatch.setattr(
            bridge_module, "set_port_vlan", lambda port, vlan: self.vlans.append((port, vlan))
        )
        monkeypatch.setattr(bridge_module, "set_filter", self.set_filter)
        monkeypatch.setattr(
            bridge_module, "has_filter", lambda port, wanted: self.filters.get(port) == wanted
        )
        monkeypatch.setattr(
            bridge_module,
            "add_static_address",
            lambda port, mac: self.steps.append(("address", f"{port} {mac}")),
        )
        self.network = BridgeNetwork(
            GROUPS, lambda: HostIdentity.of(self.macs, sorted(self.addresses))
        )

    def set_filter(self, port: str, program: object) -> None:
        if self.unfilterable is not None:
            raise self.unfilterable
        self.steps.append(("filter", port))
        self.filters[port] = program

    def _open(self) -> int:
        fd = os.open("/dev/null", os.O_RDWR)
        self.fds.append(fd)
        return fd

    def open_tap(self) -> tuple[int, str]:
        return self._open(), f"vmtap{len(self.fds)}"

    def open_vhost_net(self) -> int:
        if self.vhost is not None:
            raise self.vhost
        return self._open()

    def join(self, port: str, switch: str, *, learns: bool) -> None:
        assert not learns
        self.steps.append(("join", port))
        if self.broken:
            raise OSError(19, "No such device")
        self.joined.append((port, switch))

    def all_closed(self) -> bool:
        for fd in self.fds:
            try:
                os.fstat(fd)
            except OSError:
                continue
            return False
        return True


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Switch:
    return Switch(monkeypatch)


def card(number: int = 0, group: str = "vm-network", model: NicModel = NicModel.E1000) -> NicSpec:
    return NicSpec(port_group=group, model=model, mac=f"52:54:00:00:00:{number:02x}")


def open_ports(switch: Switch, *nics: NicSpec) -> list[NetworkPort]:
    return asyncio.run(switch.network.open_ports("web", nics))


def test_a_port_for_each_card(switch: Switch) -> None:
    ports = open_ports(switch, card(0, model=NicModel.VIRTIO), card(1, "dmz"))
    assert [p.tap for p in ports] == ["vmtap1", "vmtap3"]
    assert switch.joined == [("vmtap1", "vswitch0"), ("vmtap3", "vswitch0")]
    assert switch.vlans == [("vmtap3", 20)]
    assert [p.vhost_fd is not None for p in ports] == [True, False]
    for port in ports:
        port.close()
        port.close()
    assert switch.all_closed()


def test_a_port_is_protected_before_it_is_one(switch: Switch) -> None:
    (port,) = open_ports(switch, card(7))
    assert switch.steps == [
        ("filter", "vmtap1"),
        ("join", "vmtap1"),
        ("address", "vmtap1 52:54:00:00:00:07"),
    ]
    port.close()


def test_no_port_without_protection(switch: Switch) -> None:
    switch.unfilterable = OSError(2, "No such file")
    with pytest.raises(MicaError, match="NIC 0 of VM web can't be put on vswitch0"):
        open_ports(switch, card())
    assert switch.joined == []
    assert switch.all_closed()
    switch.unfilterable = None
    switch.addresses = {f"10.0.{number}.1" for number in range(200)}
    with pytest.raises(MicaError, match="too many addresses"):
        open_ports(switch, card())
    assert switch.all_closed()


def test_a_card_with_the_hosts_address_is_not_plugged_in(switch: Switch) -> None:
    switch.macs.add("52:54:00:00:00:07")
    with pytest.raises(MicaError, match="52:54:00:00:00:07, which is this host's") as caught:
        open_ports(switch, card(7))
    assert caught.value.problem.code is ErrorCode.CONFLICT
    assert switch.all_closed()
    assert switch.network.host_macs() == switch.macs


def test_the_filters_follow_the_hosts_addresses(switch: Switch) -> None:
    ports = open_ports(switch, card(1), card(2))
    before = dict(switch.filters)
    asyncio.run(switch.network.renew())
    assert len(switch.steps) == 6, "nothing has changed"
    switch.addresses.add("fd09::5")
    asyncio.run(switch.network.renew())
    assert switch.filters.keys() == before.keys()
    assert all(switch.filters[name] != before[name] for name in before)
    for port in ports:
        port.close()


def test_ports_that_were_found_again_are_protected_and_followed(switch: Switch) -> None:
    nics = (
        NicStatus(key="nic0", mac="52:54:00:00:00:01", port_group="vm-network", tap="vmtap4"),
        NicStatus(key="nic1", mac="52:54:00:00:00:02", port_group="vm-network", tap=None),
    )
    asyncio.run(switch.network.adopt_ports("web", nics))
    assert switch.steps == [("filter", "vmtap4")]
    switch.addresses.add("fd09::5")
    asyncio.run(switch.network.renew())
    assert switch.steps == [("filter", "vmtap4")] * 2
    switch.unfilterable = OSError(19, "No such device")
    switch.addresses.add("fd09::6")
    asyncio.run(switch.network.renew())
    switch.unfilterable = None
    asyncio.run(switch.network.renew())
    assert len(switch.steps) == 2, "a port that is gone is forgotten"


def test_without_vhost_frames_go_through_qemu(switch: Switch) -> None:
    switch.vhost = FileNotFoundError(2, "No such file")
    (port,) = open_ports(switch, card(model=NicModel.VIRTIO))
    assert port.vhost_fd is None
    port.close()


def test_all_or_none(switch: Switch) -> None:
    with pytest.raises(MicaError) as caught:
        open_ports(switch, card(0), card(1, "none"))
    assert caught.value.problem.code is ErrorCode.UNAVAILABLE
    assert switch.all_closed()


def test_a_switch_that_is_not_there(switch: Switch) -> None:
    switch.broken = True
    with pytest.raises(MicaError, match="NIC 0 of VM web can't be put on vswitch0"):
        open_ports(switch, card())
    assert switch.all_closed()


def test_user_networking_opens_nothing() -> None:
    network = UserNetwork()
    (port,) = asyncio.run(network.open_ports("web", (NicSpec(),)))
    assert (port.tap_fd, port.vhost_fd) == (None, None)
    assert network.port_groups() == ("vm-network",)
