"""The platform of the appliance: the whole machine is ours.

    open console -> find_state -> apply_settings -> bind -> serving -> (runs) -> end
                                        |
                                        +-> run(): network, console board, power button, devices

`run` is started first and works from the beginning; each of its parts waits for what it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from vmkernel.errors import to_problem
from vmkernel.events import EventBus
from vmkernel.host.efi import secure_boot
from vmkernel.host.sysfs import PROC, read_text
from vmkernel.host.uevents import Uevent
from vmkernel.host_devices import BundleCatalogue, Inventory
from vmkernel.model import (
    Device,
    Finding,
    HostMode,
    HostStatus,
    MicaError,
    Operation,
    PowerAction,
    Severity,
    Subject,
)
from vmkernel.platform import findings
from vmkernel.platform.facts import boot_info, cpu_info, memory_info, virtualisation_info
from vmkernel.platform.forwarded_log import ForwardedLog
from vmkernel.platform.kernel_findings import missing_firmware
from vmkernel.platform.links import link_infos
from vmkernel.platform.machine_access import MachineAccess
from vmkernel.platform.management_network import ManagementNetwork, wired_ports
from vmkernel.platform.memory_reserve import fit_memory_reserve
from vmkernel.platform.network_upkeep import NetworkUpkeep
from vmkernel.platform.ports import PlatformContext
from vmkernel.platform.power import HostPower
from vmkernel.platform.power_buttons import PowerButtons
from vmkernel.platform.security import security_findings, security_info
from vmkernel.platform.stick import StickWatch
from vmkernel.platform.stick_settings import StickSettings
from vmkernel.platform.watched_units import WatchedUnits
from vmkernel.service_manager import notify
from vmkernel.state import StateStore
from vmkernel.state.identity import fingerprint
from vmkernel.status_screen import BoardSources, StatusBoard, Terminals
from vmkernel.version import __version__

__all__ = ["AppliancePlatform"]

_log = logging.getLogger(__name__)

_HOST = Subject(kind="host", id="host")
_STICK_WAIT_S = 30.0
_STICK_PATIENCE_S = 4.0
"""A stick behind a controller of an unusual kind needs its driver from among all the others."""
_DRIVERS_WAIT_S = 30.0
_DRIVERS_SETTLE_S = 10.0
_DRIVERS_TIME_S = 60.0
"""How long drivers may take to load before their devices count as missing."""
_SETTINGS_WAIT_S = 90.0
"""After this, the network starts with DHCP, whatever became of the state."""
_NETWORK_GRACE_S = 20.0
_CLOCK_GRACE_S = 900.0
_AFTER_FAILURE_S = 5.0
_QUIET_LEVEL = 1
_DEVICE_SUBSYSTEMS = ("pci", "usb", "block", "net", "input")
_CLOCK_SYNCED = "timesync/synchronized"


class AppliancePlatform:
    """Everything of the machine that is not VMs and their data."""

    def __init__(self, machine: MachineAccess, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._machine = machine
        self._system = machine.system
        self._console = Terminals.open(sys=machine.sys, dev=machine.dev)
        self._sticks = StickWatch(machine.sys, machine.dev)
        self._network = ManagementNetwork(
            machine.system, run=machine.systemd_run, etc=machine.etc, sys=machine.sys
        )
        self._units = WatchedUnits(machine.system.main_pid)
        self._inventory = Inventory(BundleCatalogue(), machine.system.modules_for, sys=machine.sys)
        self._cpu = cpu_info(machine.proc)
        self._started_s = machine.boot_clock()
        self._times: dict[str, float] = {"vmkernel_start": _process_start_s()}
        self._settings: StickSettings | None = None
        self._logs = ForwardedLog()
        self._settings_known = asyncio.Event()
        self._store: StateStore | None = None
        self._rest: PlatformContext | None = None
        self._power: HostPower | None = None
        self._device_findings: tuple[Finding, ...] = ()
        self._kernel_findings: tuple[Finding, ...] = ()
        self._security_findings: tuple[Finding, ...] = ()
        self._kernel_log = ""
        self._failed_units: tuple[str, ...] = ()
        self._secure_boot = secure_boot(machine.sys)
        self._devices_changed = asyncio.Event()
        self._buttons = PowerButtons(machine.sys, machine.dev, self._on_button)
        self._upkeep = NetworkUpkeep(
            machine, self._network, stage=self.stage, changed=self._on_addresses
        )
        self._userspace_s: float | None = None
        self._board = StatusBoard(
            self._console,
            BoardSources(
                version=__version__,
                hostname=lambda: self._store.config.hostname if self._store else "mica",
                addresses=lambda: machine.addresses(self._network.interfaces),
                fingerprint=self._fingerprint,
                claim_code=lambda: self._rest.claim_code() if self._rest else None,
                findings=self._findings,
                api_answers=self._api_answers,
                waiting_for=self._waiting_for,
                overwritten=self._units.poll,
            ),
        )
        self.stage("vmkernel started")
        fit_memory_reserve(memory_info(machine.proc).total_bytes, machine.proc)

    # --- the start ----------------------------------------------------------------------------

    def stage(self, text: str) -> None:
        """A line of the story on every console."""
        self._console.stage(text)

    @property
    def stick_disk(self) -> str | None:
        """The kernel's name of the boot stick, if it is present."""
        stick = self._sticks.stick
        return stick.disk.name if stick is not None else None

    async def find_state(self) -> Path | None:
        """The stick's state partition; None if no stick appeared in time."""
        notify(f"EXTEND_TIMEOUT_USEC={int((_STICK_WAIT_S + 60) * 1e6)}")
        stick = await self._sticks.wait(
            _STICK_WAIT_S, lambda: self.stage("waiting for the boot stick")
        )
        if stick is None:
            self.stage(f"NO BOOT STICK after {_STICK_WAIT_S:.0f} s: going on without kept settings")
            return None
        name = f"{stick.disk.name} ({stick.disk.model or 'no name'})"
        if stick.state is None:
            self.stage(f"boot stick {name} has NO STATE PARTITION: going on without kept settings")
        else:
            self.stage(f"boot stick is {name}")
        self._times["stick"] = self._machine.boot_clock()
        return stick.state

    async def apply_settings(self, store: StateStore, events: EventBus) -> None:
        """Take `mica.toml`, name the host, and let the network start. Never raises."""
        self._store = store
        stick = self._sticks.stick
        if stick is not None and stick.esp is not None:
            self._settings = StickSettings(
                store, events, self._run_dir / "esp", self._machine.read_stick
            )
            if await self._settings.take(stick.esp):
                self.stage("mica.toml taken from the stick")
            elif any(f.severity is Severity.ERROR for f in self._settings.findings()):
                self.stage("mica.toml on the stick was REFUSED; see the findings")
        try:
            self._system.set_hostname(store.config.hostname)
        except MicaError as error:
            _log.warning("%s", error)
        self._times["settings"] = self._machine.boot_clock()
        self._settings_known.set()
        self._logs.begin(store, events)

    def bind(self, surroundings: PlatformContext) -> None:
        """Give it the rest of the vmkernel."""
        self._rest = surroundings
        self._power = HostPower(
            self._system, surroundings.operations, surroundings.guests, self.stage
        )
        surroundings.store.on_change(lambda _: self._board.poke())

    def serving(self) -> None:
        """Requests are answered from now on."""
        self._times["vmkernel"] = self._machine.boot_clock()
        self._board.poke()

    def ending(self) -> None:
        """The vmkernel ends; the text on the console stays."""
        self._console.close()

    # --- requests -----------------------------------------------------------------------------

    async def host_info(self) -> HostStatus:
        """The host as a whole."""
        rest, machine = self._rest, self._machine
        assert rest is not None, "bind() comes first"
        if self._userspace_s is None:
            with contextlib.suppress(MicaError):
                self._userspace_s = await self._system.userspace_started_s()
            if self._userspace_s is not None:
                self._times["userspace"] = self._userspace_s
        config = rest.store.config
        return HostStatus(
            hostname=config.hostname,
            uuid=config.uuid,
            version=__version__,
            mode=HostMode.APPLIANCE,
            cpu=self._cpu,
            memory=memory_info(machine.proc),
            virtualisation=virtualisation_info(
                accelerator=rest.accelerator(),
                log=self._kernel_log,
                proc=machine.proc,
                dev=machine.dev,
            ),
            boot=boot_info(
                dict(sorted(self._times.items(), key=lambda item: item[1])), sys=machine.sys
            ),
            security=security_info(proc=machine.proc, sys=machine.sys),
            stick=self._sticks.info(),
            links=link_infos(machine.sys),
            findings=tuple(self._findings()),
            tls_fingerprint_sha256=self._fingerprint() or "",
        )

    async def devices(self) -> tuple[Device, ...]:
        """Physical PCI and USB devices."""
        return await self._inventory.devices()

    async def power(self, action: PowerAction, *, actor: str) -> Operation:
        """Begin to end the guests, then power off or restart."""
        assert self._power is not None, "bind() comes first"
        return self._power.begin(action, actor=actor)

    # --- what runs ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Everything that runs permanently; cancel it to end."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "console": self._board.run,
            "network": self._run_network,
            "events": self._run_events,
            "drivers": self._run_drivers,
            "devices": self._run_devices,
            "power button": self._buttons.run,
            "syslog": self._logs.run,
        }
        async with asyncio.TaskGroup() as group:
            for name, part in parts.items():
                group.create_task(_kept_up(name, part), name=f"platform: {name}")

    async def _run_network(self) -> None:
        """Begin with the kept settings, or without them if they don't come in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTINGS_WAIT_S):
                await self._settings_known.wait()
        await self._upkeep.run(self._store)

    def _on_addresses(self, addresses: tuple[str, ...]) -> None:
        if addresses and "network" not in self._times:
            self._times["network"] = self._machine.boot_clock()
            if not self._board.ready:
                self.stage(f"network is up: {addresses[0]}")
        self._board.poke()

    async def _run_events(self) -> None:
        """Follow devices that are added and removed."""
        loop = asyncio.get_running_loop()
        with contextlib.closing(self._machine.device_events()) as events:
            loop.add_reader(events.fileno(), events.read, self._on_uevent)
            try:
                await asyncio.Event().wait()
            finally:
                loop.remove_reader(events.fileno())

    def _on_uevent(self, event: Uevent | None) -> None:
        if event is None:
            self._devices_changed.set()
            self._buttons.look_again()
            return
        if event.subsystem not in _DEVICE_SUBSYSTEMS:
            return
        if event.subsystem == "input":
            self._buttons.look_again()
            return
        name = event.properties.get("DEVNAME", "")
        if event.subsystem == "block":
            if event.action == "remove" and self._sticks.disk_removed(name):
                self._tell(
                    "host.stick-removed", "The boot stick was removed; the host keeps running."
                )
            if event.properties.get("DEVTYPE") != "disk" or event.action == "change":
                return
        if event.action in ("add", "remove", "bind", "unbind"):
            self._devices_changed.set()

    async def _run_drivers(self) -> None:
        """Let all other drivers be loaded once the API answers, or as soon as they are needed."""
        clock = asyncio.get_running_loop().time
        started = clock()
        while not self._board.ready and clock() - started < _DRIVERS_WAIT_S:
            if self._sticks.stick is None and clock() - started > _STICK_PATIENCE_S:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._board.wait_ready()
        try:
            await self._system.load_all_drivers()
        except MicaError as error:
            self.stage(f"THE OTHER DRIVERS CAN'T BE LOADED: {error}")
        await self._inventory.load_display_drivers(self._system.load_module)
        await asyncio.Event().wait()

    async def _run_devices(self) -> None:
        """Keep the findings about devices, once the start is over, and look for a lost stick."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTINGS_WAIT_S):
                await self._board.wait_ready()
        await asyncio.sleep(_DRIVERS_SETTLE_S)
        with contextlib.suppress(OSError):
            self._machine.silence_kernel(_QUIET_LEVEL)
        while True:
            self._devices_changed.clear()
            if (
                self._sticks.stick is None
                and await asyncio.to_thread(self._sticks.probe) is not None
            ):
                self._tell("host.stick-found", "The boot stick is there.")
            with contextlib.suppress(OSError):
                self._kernel_log = await asyncio.to_thread(self._machine.kernel_log)
            self._kernel_findings = missing_firmware(self._kernel_log)
            info = security_info(proc=self._machine.proc, sys=self._machine.sys)
            self._security_findings = tuple(security_findings(info))
            self._inventory.changed()
            self._device_findings = await self._inventory.findings()
            with contextlib.suppress(MicaError):
                self._failed_units = await self._system.failed_units()
            self._board.poke()
            await self._devices_changed.wait()
            await asyncio.sleep(2.0)

    def _on_button(self) -> None:
        if self._power is None or self._power.ending:
            return
        self._tell("host.power-button", "The power button was pressed.")
        self.stage("power button pressed")
        self._power.begin(PowerAction.SHUTDOWN, actor="power-button")

    # --- what is known ------------------------------------------------------------------------

    def _findings(self) -> Iterator[Finding]:
        up_s = self._machine.boot_clock() - self._started_s
        info = virtualisation_info(
            accelerator=self._rest.accelerator() if self._rest else None,
            log=self._kernel_log,
            proc=self._machine.proc,
            dev=self._machine.dev,
        )
        coming = info.extension and up_s < _DRIVERS_TIME_S
        if not coming:
            yield from findings.virtualisation(info)
        yield from findings.network_findings(
            ports=bool(wired_ports(self._machine.sys)),
            carrier=self._network.has_carrier(),
            addresses=bool(self._machine.addresses(self._network.interfaces)),
            waited=up_s > _NETWORK_GRACE_S,
        )
        yield from self._sticks.findings()
        yield from self._units.findings()
        if self._settings is not None:
            yield from self._settings.findings()
        yield from findings.clock_findings(
            synchronised=(self._machine.systemd_run / _CLOCK_SYNCED).exists(),
            waited=up_s > _CLOCK_GRACE_S,
        )
        yield from findings.unit_findings(self._failed_units)
        yield from self._logs.findings()
        yield from self._device_findings
        yield from self._kernel_findings
        yield from self._security_findings
        yield from findings.boot_findings(secure_boot=self._secure_boot)
        if self._rest is not None:
            yield from self._rest.findings()

    def _fingerprint(self) -> str | None:
        tls = self._store.config.tls if self._store else None
        return fingerprint(tls.certificate_pem) if tls else None

    async def _api_answers(self) -> bool:
        if "vmkernel" not in self._times:
            return False
        answers = await self._machine.api_answers()
        if answers:
            self._times.setdefault("api", self._machine.boot_clock())
        return answers

    async def _waiting_for(self) -> str | None:
        parts = []
        if not self._settings_known.is_set():
            parts.append("the boot stick's state")
        with contextlib.suppress(MicaError):
            parts += [job for job in await self._system.jobs() if "vmkernel" not in job]
        return ", ".join(parts) or None

    def _tell(self, event_type: str, message: str) -> None:
        _log.info("%s", message)
        if self._rest is not None:
            self._rest.events.publish(event_type, _HOST, message=message)
        self._board.poke()


async def _kept_up(name: str, part: Callable[[], Awaitable[None]]) -> None:
    """Run a part for good: what fails in one of them must not end the others, nor the vmkernel."""
    while True:
        try:
            await part()
        except Exception as error:
            to_problem(error, f"platform: {name}")
        await asyncio.sleep(_AFTER_FAILURE_S)


def _process_start_s() -> float:
    """When this process was started, on the same clock."""
    fields = (read_text(PROC / "self/stat") or "").rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK") if len(fields) > 19 else 0.0
