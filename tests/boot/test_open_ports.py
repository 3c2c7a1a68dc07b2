"""What the appliance shows to the network: seen by a scan from outside, one open TCP port."""

from __future__ import annotations

from pathlib import Path

from tests.framework.machine import Machine
from tests.framework.outside import OutsideNetwork
from tests.framework.plugged_in import Setup, new_stick

API_PORT = 443
START_S = 150.0


def test_one_tcp_port_is_open(folder: Path) -> None:
    with OutsideNetwork() as network:
        setup = Setup(folder=folder, tap_fd=network.tap_fd)
        new_stick(setup)
        machine = Machine(setup.spec(), folder)
        try:
            machine.power_on()
            machine.wait_for(
                "the appliance has an address", lambda: bool(network.leased()), timeout_s=START_S
            )
            address = network.leased()
            assert address is not None
            machine.wait_for(
                "the API takes a connection",
                lambda: network.open_ports(address, API_PORT, API_PORT) == [API_PORT],
                timeout_s=START_S,
                interval_s=1.0,
            )
            machine.console.expect(
                rf"^API: https://{address}/$", timeout_s=30, what="the console shows the address"
            )
            assert network.open_ports(address) == [API_PORT]
            link_local = network.link_local_addresses()
            assert link_local, "the appliance answers to IPv6"
            for neighbour in link_local:
                assert network.open_ports(neighbour) == [API_PORT]
        finally:
            machine.cut_power()
