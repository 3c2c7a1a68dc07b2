"""Starts that don't go by the book, on one machine: no network at first, two ports, a restart, and
at last a kernel that panics. A second one lives in a tagged network, as its `mica.toml` says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.framework.answering import OUTSIDE
from tests.framework.appliance import Appliance
from tests.framework.collector import Collector, collecting
from tests.framework.machine import HOST_ADDRESS, Firmware, Machine
from tests.framework.outside import OUTSIDE_SERVER, OutsideNetwork
from tests.framework.plugged_in import Setup, new_stick
from tests.framework.variant import Agent, variant

PANIC = r"Kernel panic - not syncing: sysrq triggered crash"
RFC5424 = re.compile(r"<\d{1,3}>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z odd-one \S+ \S+ \S+ [-\[]")
START_S = 150.0
MANAGEMENT_VLAN = 20
ADDRESS = "10.77.0.10"


@dataclass
class Odd:
    """A machine with two network cards whose cables are both out."""

    appliance: Appliance
    collector: Collector
    agent: Agent

    @property
    def machine(self) -> Machine:
        return self.appliance.machine

    def connect_again(self) -> None:
        """Leave the connections behind that went by the other card."""
        token = self.appliance.token
        self.appliance.close()
        self.appliance = Appliance(self.machine, token=token)

    def codes(self) -> set[str]:
        return {finding["code"] for finding in self.appliance.host()["findings"]}

    def plug(self, card: str, *, up: bool = True) -> None:
        self.machine.qmp("set_link", name=card, up=up)


@pytest.fixture(scope="module")
def odd(folder: Path) -> Iterator[Odd]:
    """The variant with the agent, so that its kernel can be made to panic."""
    socket = folder / "agent.sock"
    socket.unlink(missing_ok=True)
    with collecting() as collector:
        setup = Setup(
            folder=folder,
            firmware=Firmware.BIOS,
            settings=f'hostname = "odd-one"\n[log]\nsyslog = "tcp://{OUTSIDE}:{collector.port}"\n',
            extra=(
                *variant().arguments(socket),
                *("-netdev", "user,id=net1", "-device", "virtio-net-pci,netdev=net1"),
                *("-action", "reboot=reset"),
            ),
            tolerate=(PANIC,),
        )
        new_stick(setup)
        machine = Machine(setup.spec(), folder)
        try:
            machine.power_on(tolerate=setup.tolerate)
            for card in ("net0", "net1"):
                machine.qmp("set_link", name=card, up=False)
            appliance = Appliance(machine)
            agent = Agent(socket)
            odd = Odd(appliance, collector, agent)
            try:
                yield odd
            finally:
                agent.close()
                odd.appliance.close()
        finally:
            machine.cut_power()


def test_without_a_network_the_console_says_so(odd: Odd) -> None:
    console = odd.machine.console
    _, line = console.expect(r"^Mica \S+ is ready$", timeout_s=START_S, what="the start ends")
    position = console.lines().index(line)
    for pattern in (r"^API: no address$", r"^Finding: error no-network-link: .* plug in a cable"):
        console.expect(pattern, timeout_s=30, what="the console says so", after=position)


@pytest.mark.story
def test_the_api_comes_up_with_the_link(odd: Odd) -> None:
    odd.plug("net0")
    odd.machine.wait_api(timeout_s=60)
    odd.appliance.claim()
    odd.machine.wait_for(
        "the finding is gone", lambda: "no-network-link" not in odd.codes(), timeout_s=30
    )
    assert odd.appliance.host()["hostname"] == "odd-one"


@pytest.mark.story
def test_the_log_arrives_with_what_was_before(odd: Odd) -> None:
    """Events of the start waited for the network; the journal's lines come besides."""
    collector = odd.collector
    for text in ("host.mica-toml-taken", "audit.changed", " vmkernel "):
        odd.machine.wait_for(text, partial(collector.holds, text), timeout_s=60)
    assert all(RFC5424.match(message) for message in collector.messages), collector.messages
    assert "syslog-unreachable" not in odd.codes()


@pytest.mark.story
def test_a_second_port_takes_over(odd: Odd) -> None:
    machine = odd.machine
    forward = f"tcp:127.0.0.1:{machine.port}"
    for command in (
        f"hostfwd_remove net0 {forward}",
        f"hostfwd_add net1 {forward}-{HOST_ADDRESS}:443",
    ):
        machine.qmp("human-monitor-command", **{"command-line": command})
    odd.plug("net1")
    odd.plug("net0", up=False)
    machine.wait_api(timeout_s=30)
    odd.connect_again()
    links = odd.appliance.host()["links"]
    assert sorted(link["carrier"] for link in links if link["master"] == "bond0") == [False, True]


@pytest.mark.story
def test_a_restart_by_the_api_keeps_the_state(odd: Odd) -> None:
    before = odd.appliance.host()
    position = odd.machine.console.count()
    odd.appliance.call("POST", "/v1/host/power", json={"action": "reboot"}, expect=202)
    odd.machine.console.expect(
        r"vmkernel started", timeout_s=START_S, what="it starts again", after=position
    )
    odd.machine.wait_api(timeout_s=START_S)
    host = odd.appliance.host()
    assert (host["uuid"], host["hostname"]) == (before["uuid"], "odd-one")
    assert host["boot"]["booted_at"] > before["boot"]["booted_at"]
    assert "mica-toml-taken" not in odd.codes(), "the same file is not taken twice"


@pytest.mark.story
def test_a_panic_is_read_on_the_screen_and_on_the_serial_line(odd: Odd, folder: Path) -> None:
    """The last test of this machine; a minute later it would restart itself."""
    before = _picture(odd, folder / "before.ppm")
    position = odd.machine.console.count()
    crash = "open('/proc/sysrq-trigger', 'w').write('c')"
    with pytest.raises(AssertionError):
        odd.agent.run("/usr/bin/python3", "-c", crash, timeout_s=10)
    odd.machine.console.expect(PANIC, timeout_s=30, what="the serial line says why", after=position)
    odd.machine.wait_for(
        "the screen shows it", lambda: _picture(odd, folder / "panic.ppm") != before, timeout_s=10
    )


def _picture(odd: Odd, path: Path) -> bytes:
    odd.machine.screenshot(path)
    return path.read_bytes()


def test_a_fixed_address_in_a_tagged_network(folder: Path) -> None:
    with OutsideNetwork(tag=MANAGEMENT_VLAN) as network:
        setup = Setup(
            folder=folder / "tagged",
            firmware=Firmware.BIOS,
            tap_fd=network.tap_fd,
            settings=f'[network]\naddresses = ["{ADDRESS}/24"]\ngateways = ["{OUTSIDE_SERVER}"]\n'
            f'vlan = {MANAGEMENT_VLAN}\n[log]\nsyslog = "udp://{OUTSIDE_SERVER}"\n',
        )
        new_stick(setup)
        machine = Machine(setup.spec(), setup.folder)
        try:
            machine.power_on()
            machine.console.expect(
                rf"^API: https://{ADDRESS}/$",
                timeout_s=START_S,
                what="the console shows the address",
            )
            machine.wait_for(
                "the API answers in the tagged network",
                lambda: network.status_line(ADDRESS, "/v1").startswith("HTTP/1.1 200"),
                timeout_s=30,
                interval_s=1.0,
            )
            assert network.leased() is None, "a host with a fixed address asks for no other"
            message = network.syslog_message()
            assert re.match(r"<\d{1,3}>1 \S+ mica-[0-9a-f]{8} ", message), message
        finally:
            machine.cut_power()
