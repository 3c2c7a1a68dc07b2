"""Ports of VMs: what can be asked for, and that nothing is left open where one can't be had."""

from __future__ import annotations

import asyncio
import os

import pytest

from vmkernel.model import ErrorCode, MicaError, NicModel, NicSpec
from vmkernel.network import BridgeNetwork, NetworkPort, PortGroup, UserNetwork
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
        monkeypatch.setattr(bridge_module, "open_tap", self.open_tap)
        monkeypatch.setattr(bridge_module, "open_vhost_net", self.open_vhost_net)
        monkeypatch.setattr(bridge_module, "join_bridge", self.join)
        monkeypatch.setattr(
            bridge_module, "set_port_vlan", lambda port, vlan: self.vlans.append((port, vlan))
        )

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

    def join(self, port: str, switch: str) -> None:
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


def open_ports(*nics: NicSpec) -> list[NetworkPort]:
    return asyncio.run(BridgeNetwork(GROUPS).open_ports("web", nics))


def test_a_port_for_each_card(switch: Switch) -> None:
    ports = open_ports(
        NicSpec(model=NicModel.VIRTIO), NicSpec(port_group="dmz", model=NicModel.E1000)
    )
    assert [p.tap for p in ports] == ["vmtap1", "vmtap3"]
    assert switch.joined == [("vmtap1", "vswitch0"), ("vmtap3", "vswitch0")]
    assert switch.vlans == [("vmtap3", 20)]
    assert [p.vhost_fd is not None for p in ports] == [True, False]
    for port in ports:
        port.close()
        port.close()
    assert switch.all_closed()


def test_without_vhost_frames_go_through_qemu(switch: Switch) -> None:
    switch.vhost = FileNotFoundError(2, "No such file")
    (port,) = open_ports(NicSpec(model=NicModel.VIRTIO))
    assert port.vhost_fd is None
    port.close()


def test_all_or_none(switch: Switch) -> None:
    with pytest.raises(MicaError) as caught:
        open_ports(NicSpec(), NicSpec(port_group="none"))
    assert caught.value.problem.code is ErrorCode.UNAVAILABLE
    assert switch.all_closed()


def test_a_switch_that_is_not_there(switch: Switch) -> None:
    switch.broken = True
    with pytest.raises(MicaError, match="Card 0 of VM web can't be put on vswitch0"):
        open_ports(NicSpec())
    assert switch.all_closed()


def test_user_networking_opens_nothing() -> None:
    network = UserNetwork()
    (port,) = asyncio.run(network.open_ports("web", (NicSpec(),)))
    assert (port.tap_fd, port.vhost_fd) == (None, None)
    assert network.port_groups() == ("vm-network",)
