"""The appliance's platform on a made-up machine: its start, whatever becomes of the stick; its
network; its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.framework.own_time import own_time
from tests.framework.running import on_loop
from tests.unit.platform.sample_tree import ESP_GUID, SampleMachine, gpt_bytes
from tests.unit.platform.test_management_network import FakeSystem
from tests.unit.platform.test_power import Machine as Guests
from tests.unit.platform.test_stick_settings import GOOD
from tests.unit.state.ram_medium import RamMedium
from vmkernel.events import EventBus
from vmkernel.host.errors import HostError
from vmkernel.host.uevents import Uevent
from vmkernel.model import ErrorCode, HostMode, MicaError, PowerAction
from vmkernel.operations import OperationRegistry
from vmkernel.platform.appliance import AppliancePlatform
from vmkernel.platform.machine_access import MachineAccess
from vmkernel.platform.ports import PlatformContext
from vmkernel.platform.stick import ESP_TYPE_GUID
from vmkernel.state import StateLog, StateStore

MAC, OTHER_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"
BUTTON = "PNP0C0C/button/input0"


@pytest.fixture(autouse=True)
def time_of_its_own() -> Iterator[None]:
    """No start waits for real time."""
    with own_time():
        yield


class Switchboard(FakeSystem):
    """What is asked of PID 1."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.hostnames: list[str] = []
        self.failed: tuple[str, ...] = ()
        self.broken = False

    async def reload_network(self) -> None:
        await super().reload_network()
        if self.broken:
            raise HostError("systemctl failed.")

    async def power_off(self) -> None:
        self.asked.append("power off")

    async def load_all_drivers(self) -> None:
        self.asked.append("drivers")

    async def jobs(self) -> tuple[str, ...]:
        return ("systemd-networkd.service start", "mica-vmkernel.service start")

    async def failed_units(self) -> tuple[str, ...]:
        return self.failed

    async def userspace_started_s(self) -> float | None:
        return 1.5

    async def modules_for(self, modalias: str) -> tuple[str, ...]:  # noqa: ARG002
        return ()

    @staticmethod
    def main_pid(unit: str, cgroups: Path = Path()) -> int | None:  # noqa: ARG004
        return 1

    def set_hostname(self, name: str) -> None:
        self.hostnames.append(name)

    @property
    def hostname(self) -> str:
        return self.hostnames[-1]


class Events:
    """The kernel's device events, or its changes of links: `tell` them."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._queue: list[Uevent | None] = []
        self.closed = False

    def tell(self, event: Uevent | None = None) -> None:
        self._queue.append(event)
        self._theirs.send(b"x")

    def fileno(self) -> int:
        return self._ours.fileno()

    def read(self, handle: Callable[[Uevent | None], None]) -> None:
        while self._queue:
            self._ours.recv(1)
            handle(self._queue.pop(0))

    def drain(self, changed: Callable[[], None]) -> None:
        self.read(lambda _: None)
        changed()

    def close(self) -> None:
        self.closed = True
        self._ours.close()
        self._theirs.close()


class Host:
    """A machine, its platform, and the rest of a vmkernel."""

    def __init__(self, root: Path) -> None:
        self.tree = SampleMachine(root)
        self.tree.write("proc/cpuinfo", "processor: 0\nvendor_id: AuthenticAMD\nflags: svm\n")
        self.tree.write("proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n")
        self.tree.write("proc/sys/vm/min_free_kbytes", "67584")
        self.tree.write("sys/class/tty/console/active", "ttyS0")
        self.tree.write("dev/ttyS0", "")
        (self.tree.dev / "input").mkdir()
        self.system = Switchboard()
        self.events: list[Events] = []
        self.links: list[Events] = []
        self.addresses: tuple[str, ...] = ()
        self.api = False
        self.log = ""
        self.quiet_level: int | None = None
        self.toml: bytes | OSError | None = None
        self.no_events = 0
        """So often the kernel's events can't be had."""
        self.medium = RamMedium(slot_bytes=1 << 16)
        self.bus = EventBus()
        self._told = self.bus.subscribe()
        self.guests = Guests()
        self.operations = OperationRegistry(self.bus)
        self.platform = AppliancePlatform(
            MachineAccess(
                self.system,
                sys=self.tree.sys,
                proc=self.tree.proc,
                dev=self.tree.dev,
                etc=root / "etc",
                systemd_run=root / "run/systemd",
                boot_clock=lambda: 10 + asyncio.get_event_loop().time(),
                device_events=self._device_events,
                link_changes=self._link_changes,
                addresses=lambda _: self.addresses,
                kernel_log=lambda: self.log,
                silence_kernel=self._silence,
                api_answers=self._api_answers,
                read_stick=self._read_stick,
            ),
            root / "run/mica",
        )
        self.store = StateStore(None)

    def _device_events(self) -> Events:
        if self.no_events:
            self.no_events -= 1
            raise OSError("no netlink")
        self.events.append(Events())
        return self.events[-1]

    def _link_changes(self) -> Events:
        self.links.append(Events())
        return self.links[-1]

    def _silence(self, level: int) -> None:
        self.quiet_level = level

    async def _api_answers(self) -> bool:
        return self.api

    def _read_stick(self, esp: Path, _: Path) -> bytes | None:
        assert esp == self.tree.dev / "sda1"
        if isinstance(self.toml, OSError):
            raise self.toml
        return self.toml

    async def start(self, *, state: bool = True) -> None:
        """As vmkernel/wiring.py does; the state log is the medium's, as it is."""
        found = await self.platform.find_state()
        kept = found is not None and state
        self.store = StateStore(StateLog(self.medium) if kept else None)
        self.store.open("no state partition was found")
        await self.platform.apply_settings(self.store, self.bus)
        self.platform.bind(
            PlatformContext(
                store=self.store,
                events=self.bus,
                operations=self.operations,
                claim_code=lambda: "ABCDE-FGHJK",
                findings=self.store.findings,
                guests=self.guests,
                accelerator=lambda: "kvm",
            )
        )
        self.platform.serving()

    async def keep_hostnames(self, *names: str) -> None:
        """As starts before this one did, one after the other."""
        kept = StateStore(StateLog(self.medium))
        kept.open()
        for name in names:
            await kept.commit(replace(kept.config, hostname=name))

    @property
    def story(self) -> str:
        """What the console told."""
        return (self.tree.dev / "ttyS0").read_text()

    @property
    def network(self) -> str | None:
        """networkd's file of the host's own interface, where it is written."""
        path = self.tree.root / "run/systemd/network/10-vswitch0.network"
        return path.read_text() if path.exists() else None

    def told(self) -> list[str]:
        """The types of the events since the last call."""
        found = []
        while (event := self._told.poll()) is not None:
            found.append(event.type)
        return found

    async def codes(self) -> set[str]:
        """Of the findings."""
        return {finding.code for finding in (await self.platform.host_info()).findings}


@contextlib.asynccontextmanager
async def host(root: Path, *, stick: bool = True, port: bool = True) -> AsyncIterator[Host]:
    """A machine whose platform runs; it is not started yet."""
    made = Host(root)
    if stick:
        made.tree.stick("sda")
    if port:
        made.tree.port("eth0", MAC, "pci0/0000:01:00.0")
    task = asyncio.create_task(made.platform.run())
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await made.operations.close()
        made.platform.ending()
        assert all(events.closed for events in (*made.events, *made.links))


def block(action: str, name: str) -> Uevent:
    """A whole disk comes or goes."""
    return Uevent(action, "", {"SUBSYSTEM": "block", "DEVNAME": name, "DEVTYPE": "disk"})


@on_loop
async def test_a_first_start(tmp_path: Path) -> None:
    async with host(tmp_path) as mica:
        await mica.start()
        assert "boot stick is sda (Stick)" in mica.story
        assert mica.platform.stick_disk == "sda"
        assert mica.system.hostname == mica.store.config.hostname != ""
        await asyncio.sleep(1)
        assert mica.network is not None
        assert "DHCP=yes" in mica.network
        assert f"MACAddress={MAC}" in mica.network
        assert mica.store.config.management_mac == MAC, "it is known by this address from now on"
        mica.addresses = ("192.0.2.7/24",)
        mica.links[0].tell()
        await asyncio.sleep(1)
        assert "network is up: 192.0.2.7/24" in mica.story
        mica.api = True
        await asyncio.sleep(1)
        assert "ABCDE-FGHJK" in mica.story
        assert "https://192.0.2.7" in mica.story
        info = await mica.platform.host_info()
        assert (info.mode, info.cpu.vendor) == (HostMode.APPLIANCE, "AMD")
        assert info.memory.total_bytes == 4 << 30
        assert info.stick.present
        assert {"stick", "settings", "network", "vmkernel", "api"} <= set(info.boot.timings_s)
        assert int((mica.tree.proc / "sys/vm/min_free_kbytes").read_text()) < 67584


@on_loop
async def test_the_settings_of_the_last_start_are_there_again(tmp_path: Path) -> None:
    async with host(tmp_path / "one") as mica:
        mica.toml = GOOD
        await mica.start()
        assert "mica.toml taken from the stick" in mica.story
        assert mica.system.hostname == "mica1"
        await asyncio.sleep(1)
        assert "Address=192.0.2.10/24" in (mica.network or "")
        assert "host.mica-toml-taken" in mica.told()
        medium = mica.medium
    async with host(tmp_path / "two") as mica:
        mica.medium = medium
        mica.toml = GOOD
        mica.tree.port("eth1", OTHER_MAC, "pci0/0000:00:01.0")  # sits before the other
        await mica.start()
        assert "mica.toml" not in mica.story, "the same file is not taken twice"
        assert mica.system.hostname == "mica1"
        await asyncio.sleep(1)
        assert "Address=192.0.2.10/24" in (mica.network or "")
        assert f"MACAddress={MAC}" in (mica.network or "")


@pytest.mark.parametrize(
    ("toml", "finding"),
    [(b"hostnam = 'x'", "mica-toml-invalid"), (OSError(5, "I/O error"), "mica-toml-unreadable")],
)
@on_loop
async def test_a_bad_mica_toml_is_a_finding_and_no_hindrance(
    tmp_path: Path, toml: bytes | OSError, finding: str
) -> None:
    async with host(tmp_path) as mica:
        mica.toml = toml
        await mica.start()
        assert ("was REFUSED" in mica.story) is (finding == "mica-toml-invalid")
        assert finding in await mica.codes()
        await asyncio.sleep(1)
        assert "DHCP=yes" in (mica.network or "")


@on_loop
async def test_a_state_that_is_damaged_hinders_no_start(tmp_path: Path) -> None:
    async with host(tmp_path) as mica:
        await mica.keep_hostnames("first", "second")
        for slot in range(2):
            at = slot * mica.medium.slot_bytes + 12
            mica.medium.data[at] ^= 0xFF
        damaged = bytes(mica.medium.data)
        await mica.start()
        assert "state-not-durable" in await mica.codes()
        assert mica.system.hostname not in ("first", "second")
        assert mica.medium.data == damaged, "it is left as it is"
        await asyncio.sleep(1)
        assert "DHCP=yes" in (mica.network or "")


@on_loop
async def test_of_a_state_whose_last_write_was_cut_the_one_before_counts(tmp_path: Path) -> None:
    async with host(tmp_path) as mica:
        await mica.keep_hostnames("first", "second")
        mica.medium.data[mica.medium.slot_bytes + 200] ^= 0xFF
        await mica.start()
        assert mica.system.hostname == "first"


@on_loop
async def test_no_stick_comes(tmp_path: Path) -> None:
    async with host(tmp_path, stick=False) as mica:
        start = asyncio.create_task(mica.start())
        await asyncio.sleep(29)
        assert "waiting for the boot stick" in mica.story
        assert "drivers" in mica.system.asked, "its controller's may be among the others"
        assert not start.done()
        assert mica.network is None
        await asyncio.sleep(2)
        assert start.done()
        assert "NO BOOT STICK after 30 s" in mica.story
        await asyncio.sleep(1)
        assert "DHCP=yes" in (mica.network or "")
        assert "stick-missing" in await mica.codes()
        assert mica.platform.stick_disk is None


@on_loop
async def test_a_stick_that_comes_late(tmp_path: Path) -> None:
    async with host(tmp_path, stick=False) as mica:
        start = asyncio.create_task(mica.start())
        await asyncio.sleep(20)
        mica.tree.stick("sda")
        await asyncio.sleep(1)
        assert start.done()
        assert "boot stick is sda" in mica.story
        assert "stick-missing" not in await mica.codes()


@on_loop
async def test_a_stick_without_a_state_partition(tmp_path: Path) -> None:
    async with host(tmp_path) as mica:
        mica.tree.efi(LoaderDevicePartUUID=ESP_GUID)
        mica.tree.write("dev/sda", gpt_bytes([(ESP_TYPE_GUID, ESP_GUID, 40, 1039)]))
        mica.toml = GOOD
        await mica.start()
        assert "NO STATE PARTITION" in mica.story
        # What can't be kept isn't applied.
        assert "mica-toml-not-kept" in await mica.codes()
        assert mica.system.hostname != "mica1"
        await asyncio.sleep(1)
        assert "DHCP=yes" in (mica.network or "")


@on_loop
async def test_the_network_starts_whatever_becomes_of_the_state(tmp_path: Path) -> None:
    """Nobody ever says what the settings are, as if reading the stick never ended."""
    async with host(tmp_path) as mica:
        await asyncio.sleep(89)
        assert mica.network is None
        await asyncio.sleep(2)
        assert "DHCP=yes" in (mica.network or "")
        assert f"MACAddress={MAC}" in (mica.network or "")
        assert "still waiting for the boot stick's state, systemd-networkd.service" in mica.story


@on_loop
async def test_a_network_that_cannot_be_configured_is_said(tmp_path: Path) -> None:
    async with host(tmp_path) as mica:
        mica.system.broken = True
        await mica.start()
        await asyncio.sleep(1)
        assert "THE NETWORK CAN'T BE CONFIGURED: systemctl failed." in mica.story
        # It is followed all the same: what networkd makes of its files may come.
        mica.addresses = ("192.0.2.7/24",)
        mica.links[0].tell()
        await asyncio.sleep(1)
        assert "network is up" in mica.story


@on_loop
async def test_a_machine_without_a_port(tmp_path: Path) -> None:
    async with host(tmp_path, port=False) as mica:
        await mica.start()
        await asyncio.sleep(4)
        assert mica.network is None, "the port's driver may still come"
        await asyncio.sleep(2)
        assert "no wired network port was found yet" in mica.story
        assert "MACAddress" not in (mica.network or "MACAddress")
        assert mica.store.config.management_mac is None
        await asyncio.sleep(20)
        assert "no-network-port" in await mica.codes()


@on_loop
async def test_the_port_that_it_is_known_by_is_waited_for(tmp_path: Path) -> None:
    async with host(tmp_path) as mica:
        found = await mica.platform.find_state()
        assert found == mica.tree.dev / "sda2"
        mica.store = StateStore(StateLog(mica.medium))
        mica.store.open("")
        await mica.store.update(lambda config: replace(config, management_mac=OTHER_MAC))
        await mica.platform.apply_settings(mica.store, mica.bus)
        await asyncio.sleep(3)
        assert mica.network is None
        mica.tree.port("eth1", OTHER_MAC, "pci0/0000:02:00.0")
        await asyncio.sleep(1)
        assert f"MACAddress={OTHER_MAC}" in (mica.network or "")


@on_loop
async def test_a_stick_that_is_pulled_and_put_back(tmp_path: Path) -> None:
    async with host(tmp_path) as mica:
        await mica.start()
        mica.api = True
        mica.addresses = ("192.0.2.7/24",)
        await asyncio.sleep(20)
        mica.told()
        mica.tree.pull("sda")
        mica.events[0].tell(block("remove", "sdz"))
        mica.events[0].tell(block("remove", "sda"))
        await asyncio.sleep(5)
        assert mica.told() == ["host.stick-removed"]
        assert "stick-missing" in await mica.codes()
        assert mica.platform.stick_disk is None
        mica.tree.stick("sdb")
        mica.events[0].tell(block("add", "sdb"))
        await asyncio.sleep(5)
        assert mica.told() == ["host.stick-found"]
        assert mica.platform.stick_disk == "sdb"
        assert "stick-missing" not in await mica.codes()


@pytest.mark.parametrize(("answers_at_s", "loaded_by_s"), [(2.0, 4.0), (None, 31.0)])
@on_loop
async def test_the_other_drivers_come_after_the_api(
    tmp_path: Path, answers_at_s: float | None, loaded_by_s: float
) -> None:
    async with host(tmp_path) as mica:
        await mica.start()
        mica.addresses = ("192.0.2.7/24",)
        await asyncio.sleep(1.5)
        assert mica.system.asked == []
        mica.api = answers_at_s is not None
        await asyncio.sleep(loaded_by_s - 1.5)
        assert mica.system.asked == ["drivers"]


@on_loop
async def test_what_is_found_out_once_the_start_is_over(tmp_path: Path) -> None:
    async with host(tmp_path) as mica:
        await mica.start()
        mica.api, mica.addresses = True, ("192.0.2.7/24",)
        mica.log = "e1000e 0000:01:00.0: Direct firmware load for x.bin failed with error -2\n"
        mica.system.failed = ("smartd.service",)
        await asyncio.sleep(5)
        assert mica.quiet_level is None
        await asyncio.sleep(10)
        assert mica.quiet_level == 1
        assert {"missing-firmware", "unit-failed"} <= await mica.codes()
        mica.system.failed, mica.log = (), ""
        mica.events[0].tell(None)  # events were lost: everything is looked at again
        await asyncio.sleep(5)
        assert not {"missing-firmware", "unit-failed"} & await mica.codes()


@on_loop
async def test_the_power_button_ends_the_guests_first(tmp_path: Path) -> None:
    async with host(tmp_path) as mica:
        device = mica.tree.dev / "input/event0"
        os.mkfifo(device)
        await mica.start()
        await asyncio.sleep(1)
        mica.tree.write("sys/class/input/event0/device/phys", BUTTON)
        mica.events[0].tell(Uevent("add", "", {"SUBSYSTEM": "input", "DEVNAME": "input/event0"}))
        await asyncio.sleep(1)
        key = struct.Struct("llHHi")
        with device.open("wb", buffering=0) as button:
            button.write(key.pack(0, 0, 1, 30, 1))  # another key
            await asyncio.sleep(1)
            assert mica.guests.done == []
            button.write(key.pack(0, 0, 1, 116, 1) * 2)
            await asyncio.sleep(1)
            button.write(key.pack(0, 0, 1, 116, 1))
            await asyncio.sleep(1)
        assert (mica.guests.done, mica.system.asked) == (["guests"], ["power off"])
        assert mica.told().count("host.power-button") == 1
        assert "power button pressed" in mica.story
        with pytest.raises(MicaError, match="already") as caught:
            await mica.platform.power(PowerAction.REBOOT, actor="anna")
        assert caught.value.problem.code is ErrorCode.CONFLICT


@on_loop
async def test_what_fails_in_one_part_ends_no_other_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with host(tmp_path) as mica:
        mica.no_events = 2
        await mica.start()
        await asyncio.sleep(4)
        assert mica.events == []
        assert "DHCP=yes" in (mica.network or "")
        await asyncio.sleep(8)
        assert len(mica.events) == 1
        assert "no netlink" in caplog.text
        mica.tree.pull("sda")
        mica.events[0].tell(block("remove", "sda"))
        await asyncio.sleep(1)
        assert "host.stick-removed" in mica.told()
