"""The host's own interface: networkd's files, the address it is known by, the resolver."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.platform.sample_tree import SampleMachine
from vmkernel.host.system import System
from vmkernel.platform import management_network
from vmkernel.platform.management_network import (
    ManagementNetwork,
    choose_mac,
    network_files,
    wired_ports,
)
from vmkernel.state import NetworkSettings

MAC = "52:54:00:12:34:56"


class FakeSystem(System):
    """Counts what would be started again."""

    def __init__(self) -> None:
        self.reloads = 0
        self.restarts = 0

    async def reload_network(self) -> None:
        self.reloads += 1

    async def restart_time_sync(self) -> None:
        self.restarts += 1


def test_without_settings_everything_is_asked_for() -> None:
    (name,) = files = network_files(NetworkSettings(), MAC)
    text = files[name]
    assert name == "10-vswitch0.network"
    for line in ("Name=vswitch0", f"MACAddress={MAC}", "DHCP=yes", "IPv6AcceptRA=yes"):
        assert line in text.splitlines()


def test_fixed_addresses_ask_for_nothing() -> None:
    settings = NetworkSettings(
        addresses=("192.0.2.10/24", "2001:db8::10/64"),
        gateways=("192.0.2.1",),
        nameservers=("192.0.2.53",),
    )
    lines = network_files(settings, None)["10-vswitch0.network"].splitlines()
    for line in (
        "DHCP=no",
        "IPv6AcceptRA=no",
        "Address=192.0.2.10/24",
        "Address=2001:db8::10/64",
        "Gateway=192.0.2.1",
        "DNS=192.0.2.53",
    ):
        assert line in lines
    assert not any(line.startswith("MACAddress") for line in lines)


def test_a_vlan_has_an_interface_of_its_own_and_passes_the_uplink() -> None:
    files = network_files(NetworkSettings(vlan=20), MAC)
    assert "Id=20" in files["10-management.netdev"]
    assert "DHCP=yes" in files["10-management.network"]
    assert "DHCP" not in files["10-vswitch0.network"]
    for name in ("10-vswitch0.network", "20-bond0.network"):
        assert "VLAN=20" in files[name].splitlines()
        assert "PVID=1" in files[name].splitlines()


def test_ports_are_ordered_by_where_they_sit(tmp_path: Path) -> None:
    machine = SampleMachine(tmp_path)
    machine.port("enp10s0", "aa:00:00:00:00:01", "pci0/0000:10:00.0")
    machine.port("enp2s0", "aa:00:00:00:00:02", "pci0/0000:2:00.0")
    (machine.sys / "class/net/bond0").mkdir()
    ports = wired_ports(machine.sys)
    assert list(ports) == ["aa:00:00:00:00:02", "aa:00:00:00:00:01"]


def test_a_port_in_the_bond_is_known_by_its_own_address(tmp_path: Path) -> None:
    machine = SampleMachine(tmp_path)
    machine.port("eth0", "aa:00:00:00:00:99", "pci0/a")
    machine.write("sys/class/net/eth0/bonding_slave/perm_hwaddr", "aa:00:00:00:00:01\n")
    assert list(wired_ports(machine.sys)) == ["aa:00:00:00:00:01"]


def test_the_remembered_address_counts_only_while_its_port_is_here() -> None:
    ports = {"aa:1": "x", "aa:2": "y"}
    assert choose_mac(ports, "aa:2") == "aa:2"
    assert choose_mac(ports, "aa:3") == "aa:1"
    assert choose_mac(ports, None) == "aa:1"
    assert choose_mac({}, "aa:3") is None


def test_applying_twice_reloads_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        system = FakeSystem()
        network = ManagementNetwork(
            system, run=tmp_path / "run", etc=tmp_path / "etc", sys=tmp_path / "sys"
        )
        settings = NetworkSettings(vlan=20, ntp_servers=("ntp.example",))
        await network.apply(settings, MAC)
        await network.apply(settings, MAC)
        assert (system.reloads, system.restarts) == (1, 1)
        assert network.interfaces == ("management",)
        await network.apply(NetworkSettings(), MAC)
        assert (system.reloads, system.restarts) == (2, 2)
        assert sorted(p.name for p in (tmp_path / "run/network").iterdir()) == [
            "10-vswitch0.network"
        ]
        assert not list((tmp_path / "run/timesyncd.conf.d").iterdir())

    asyncio.run(scenario())


def test_the_resolver_asks_the_settings_servers_first(tmp_path: Path) -> None:
    async def scenario() -> str:
        (tmp_path / "netif").mkdir()
        (tmp_path / "netif/state").write_text("OPER_STATE=routable\nDNS=10.0.2.3 192.0.2.1#x\n")
        network = ManagementNetwork(
            FakeSystem(), run=tmp_path, etc=tmp_path / "etc", sys=tmp_path / "sys"
        )
        await network.apply(NetworkSettings(nameservers=("192.0.2.53",)), None)
        return (tmp_path / "etc/resolv.conf").read_text()

    assert asyncio.run(scenario()).splitlines()[1:] == [
        "nameserver 192.0.2.53",
        "nameserver 10.0.2.3",
        "nameserver 192.0.2.1",
    ]


def test_the_switch_keeps_its_address_from_the_first_port_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed: list[tuple[str, str]] = []
    monkeypatch.setattr(
        management_network, "fix_hardware_address", lambda name, mac: fixed.append((name, mac))
    )
    machine = SampleMachine(tmp_path)
    network = ManagementNetwork(FakeSystem(), sys=machine.sys)
    network.fix_address()
    machine.port("eth0", MAC, "pci0/a")
    network.fix_address()
    assert fixed == []
    machine.write("sys/class/net/vswitch0/addr_assign_type", "0")
    machine.write("sys/class/net/vswitch0/address", MAC + "\n")
    network.fix_address()
    assert fixed == [("vswitch0", MAC)]
    machine.write("sys/class/net/vswitch0/addr_assign_type", "3")
    network.fix_address()
    assert len(fixed) == 1
    machine.write("sys/class/net/vswitch0/address", "02:00:00:00:00:01\n")
    network.fix_address()
    assert len(fixed) == 2


def test_carrier_is_that_of_wired_ports(tmp_path: Path) -> None:
    machine = SampleMachine(tmp_path)
    machine.port("eth0", MAC, "pci0/a", carrier=False)
    network = ManagementNetwork(FakeSystem(), sys=machine.sys)
    assert not network.has_carrier()
    machine.port("eth1", "52:54:00:12:34:57", "pci0/b")
    assert network.has_carrier()
