"""The outer machine: a PC with AMD SVM, emulated by QEMU, that the stick is plugged into.

off -> firmware -> kernel -> userspace -> api        the states it is brought through, in order
 ^                                        |
 +---- power_off(), shut_down(), cut -----+

MachineError
  MachineDiedError       QEMU ended by itself
    EmulatorFaultError   … with the known fault of the emulator (see retries.py)
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from appliance_build.tools.sandbox import loader_argv, qemu_environment
from tests.framework import inputs
from tests.framework.console import Console, SocketWire
from tests.framework.drives import Drive
from tests.framework.ending import started
from tests.framework.port_watch import PortWatch

__all__ = [
    "EmulatorFaultError",
    "Firmware",
    "HOST_ADDRESS",
    "Machine",
    "MachineDiedError",
    "MachineError",
    "MachineSpec",
    "NIC_MAC",
    "Stage",
    "running",
]

KNOWN_FAULT = "cpu_interrupt: assertion failed: (bql_locked())"
HOST_ADDRESS = "10.0.2.15"
"""What the emulator's own DHCP server gives to the first who asks."""
NIC_MAC = "52:54:00:4d:49:43"


class MachineError(AssertionError):
    """The test machine did not do what was asked of it."""


class MachineDiedError(MachineError):
    """QEMU ended by itself."""


class EmulatorFaultError(MachineDiedError):
    """QEMU ended with the known fault of its emulated SVM; no fault of what ran inside."""


class Firmware(StrEnum):
    """What the machine starts with."""

    UEFI = "uefi"
    BIOS = "bios"


class Stage(IntEnum):
    """How far the machine has come."""

    OFF = 0
    FIRMWARE = 1
    KERNEL = 2
    USERSPACE = 3
    API = 4


@dataclass(frozen=True)
class MachineSpec:
    """What the machine is made of."""

    drives: tuple[Drive, ...]
    firmware: Firmware = Firmware.UEFI
    memory_mib: int = 2048
    cpus: int = 2
    nic: str = "virtio-net-pci"
    tap_fd: int | None = None
    """A wire's descriptor (outside.py) to use instead of the emulator's own network."""
    credentials: tuple[tuple[str, str], ...] = ()
    """System credentials that the machine's firmware tables offer to systemd."""
    kernel_arguments: tuple[str, ...] = ()
    """What the kernel gets beside the image's own command line; by UEFI alone (systemd-stub)."""
    extra: tuple[str, ...] = ()
    """More arguments for QEMU."""
    name: str = "machine"


class Machine:
    """One power-on of a machine."""

    def __init__(self, spec: MachineSpec, folder: Path) -> None:
        self.spec = spec
        self.folder = folder
        self.stage = Stage.OFF
        self.port = _free_port()
        self.powered_on_s = 0.0
        """When QEMU was started, by time.monotonic()."""
        self._process: subprocess.Popen[bytes] | None = None
        self._console: Console | None = None
        self._qmp: QEMUMonitorProtocol | None = None
        self._sockets = Path()

    # --- power ----------------------------------------------------------------------------

    def power_on(self, *, tolerate: tuple[str, ...] = ()) -> None:
        """Start the emulator; returns once its firmware runs."""
        if self._process is not None:
            raise MachineError(f"{self.spec.name} is on already")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sockets = Path(tempfile.mkdtemp(prefix="mica-"))
        argv = self._argv()
        (self.folder / "command").write_text(" ".join(argv) + "\n")
        environment = {**os.environ, **qemu_environment(inputs.tools())}
        with (self.folder / "stderr").open("wb") as errors:
            self.powered_on_s = time.monotonic()
            self._process = started(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env=environment,
                start_new_session=True,
                pass_fds=[] if self.spec.tap_fd is None else [self.spec.tap_fd],
            )
        serial = SocketWire(self._connect(self._sockets / "serial"))
        self._console = Console(
            serial, self.folder / "console.log", tolerate=tolerate, watch=self._check_process
        )
        self._qmp = QEMUMonitorProtocol(str(self._sockets / "qmp"))
        self._qmp.settimeout(30)
        self._qmp.connect(negotiate=True)
        self.qmp("cont")
        self.stage = Stage.FIRMWARE

    def cut_power(self) -> None:
        """Kill the emulator, as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._forget()

    def press_power_button(self) -> None:
        """Press the ACPI power button."""
        self.qmp("system_powerdown")

    def wait_off(self, *, timeout_s: float) -> None:
        """Wait until the machine has powered itself off."""
        process = self._running()
        deadline = time.monotonic() + timeout_s
        while process.poll() is None:
            self.console.check_lines()
            if time.monotonic() > deadline:
                tail = self.console.tail()
                raise MachineError(f"{self.spec.name} is not off after {timeout_s:g} s\n{tail}")
            time.sleep(0.1)
        if process.returncode != 0:
            self._check_process()
        self._forget()

    def _forget(self) -> None:
        if self._qmp is not None:
            with suppress(QMPError, OSError, EOFError):
                self._qmp.close()
            self._qmp = None
        if self._process is not None:
            self._process.wait(timeout=30)
            self._process = None
        if self._console is not None:
            self._console.close()
        shutil.rmtree(self._sockets, ignore_errors=True)
        self.stage = Stage.OFF

    # --- observation ----------------------------------------------------------------------

    @property
    def console(self) -> Console:
        """The serial line, also after the end."""
        if self._console is None:
            raise MachineError(f"{self.spec.name} was never on")
        return self._console

    @property
    def pid(self) -> int:
        """The emulator's process."""
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise MachineError(f"{self.spec.name} is off")
        return self._process

    def errors(self) -> str:
        """What the emulator said on its standard error."""
        return (self.folder / "stderr").read_text(errors="replace")

    def check(self) -> None:
        """Raise if the machine has died or its console says that all is lost."""
        self.console.check()

    def _check_process(self) -> None:
        code = self._running().poll()
        if code is not None:
            errors = self.errors()
            what = f"{self.spec.name}: QEMU ended with {code}: {errors.strip()[-500:]}"
            if code == -signal.SIGABRT and KNOWN_FAULT in errors:
                raise EmulatorFaultError(what)
            raise MachineDiedError(f"{what}\n{self.console.tail()}")

    def wait_for(
        self,
        what: str,
        probe: Callable[[], bool],
        *,
        timeout_s: float,
        interval_s: float = 0.2,
    ) -> float:
        """Wait until `probe()` is true, watching the machine; seconds since power-on."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.check()
            if probe():
                return time.monotonic() - self.powered_on_s
            if time.monotonic() > deadline:
                tail = self.console.tail()
                raise MachineError(f"{self.spec.name}: {what}: not in {timeout_s:g} s\n{tail}")
            time.sleep(interval_s)

    def wait_api(self, *, timeout_s: float = 150.0) -> float:
        """Wait until the API answers over HTTPS; seconds since power-on."""
        with PortWatch(self.port) as watch:
            seconds = self.wait_for(
                "the API answers",
                lambda: watch.answers() and self._api_answers(),
                timeout_s=timeout_s,
                interval_s=0,
            )
        self.stage = Stage.API
        return seconds

    def certificate_sha256(self) -> str:
        """The fingerprint of the certificate that the API presents, in lower-case hex."""
        context = _unchecked_context()
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain:
            with context.wrap_socket(plain) as channel:
                certificate = channel.getpeercert(binary_form=True)
        if certificate is None:
            raise MachineError("the API presents no certificate")
        return hashlib.sha256(certificate).hexdigest()

    def _api_answers(self) -> bool:
        request = b"GET /v1 HTTP/1.1\r\nHost: mica\r\nConnection: close\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain:
                with _unchecked_context().wrap_socket(plain) as channel:
                    channel.sendall(request)
                    return channel.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    # --- the emulator's monitor -------------------------------------------------------------

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Ask the emulator."""
        if self._qmp is None:
            raise MachineError(f"{self.spec.name} is off")
        try:
            return self._qmp.cmd(command, **arguments)
        except QMPError:
            time.sleep(0.2)
            self.check()
            raise

    def processors(self, samples: int = 4) -> list[str]:
        """What each processor does, a few times half a second apart: where it is, and whether it is
        halted. While a guest inside runs, that is the guest's. For the report of a failure only."""
        told: list[str] = []
        for number in range(samples):
            try:
                text = str(
                    self.qmp("human-monitor-command", **{"command-line": "info registers -a"})
                )
            except (MachineError, QMPError) as error:
                return [*told, f"not told: {error}"]
            for part in text.split("CPU#")[1:]:
                words = dict(re.findall(r"\b(RIP|EIP|RFL|CPL|HLT|CR0|CR3|A20)=\s*(\S+)", part))
                told.append(f"{number} CPU#{part.split()[0]} {words}")
            time.sleep(0.5)
        return told

    def written_bytes(self, drive: str) -> int:
        """What the machine has written to a drive since power-on, by QEMU's own count."""
        return int(self._statistics(drive)["wr_bytes"])

    def write_operations(self, drive: str) -> int:
        """How many writes the machine has sent to a drive since power-on."""
        return int(self._statistics(drive)["wr_operations"])

    def _statistics(self, drive: str) -> dict[str, Any]:
        for entry in self.qmp("query-blockstats"):
            if f"/{drive}/" in f"{entry.get('qdev', '')}/" or entry.get("qdev") == drive:
                statistics: dict[str, Any] = entry["stats"]
                return statistics
        raise MachineError(f"{self.spec.name} has no drive {drive}")

    def screenshot(self, path: Path) -> None:
        """The machine's screen as a PPM picture."""
        self.qmp("screendump", filename=str(path))

    # --- QEMU's arguments -------------------------------------------------------------------

    def _argv(self) -> list[str]:
        spec, tree = self.spec, inputs.tools()
        words = loader_argv(tree, "qemu-system-x86_64")
        words += ["-name", spec.name, "-nodefaults", "-no-user-config", "-S", "-no-reboot"]
        words += ["-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "EPYC"]
        words += ["-smp", str(spec.cpus), "-m", str(spec.memory_mib)]
        words += ["-display", "none", "-device", "VGA", "-device", "qemu-xhci,id=xhci"]
        words += ["-device", "virtio-rng-pci"]
        for name in ("serial", "qmp"):
            path = self._sockets / name
            words += ["-chardev", f"socket,id={name},path={path},server=on,wait=off"]
        words += ["-serial", "chardev:serial", "-mon", "chardev=qmp,mode=control"]
        words += self._network()
        if spec.firmware is Firmware.UEFI:
            words += self._pflash(tree)
        for drive in spec.drives:
            words += drive.arguments()
        for name, value in spec.credentials:
            encoded = base64.b64encode(value.encode()).decode()
            text = f"io.systemd.credential.binary:{name}={encoded}"
            words += ["-smbios", f"type=11,value={text}"]
        if spec.kernel_arguments:
            text = f"io.systemd.stub.kernel-cmdline-extra={' '.join(spec.kernel_arguments)}"
            words += ["-smbios", f"type=11,value={text}"]
        return [*words, *spec.extra]

    def _network(self) -> list[str]:
        nic = f"{self.spec.nic},netdev=net0,mac={NIC_MAC}"
        if self.spec.tap_fd is not None:
            wire = self.spec.tap_fd
            is_socket = stat.S_ISSOCK(os.fstat(wire).st_mode)
            backend = (
                f"dgram,id=net0,local.type=fd,local.str={wire}"
                if is_socket
                else f"tap,id=net0,fd={wire}"
            )
        else:
            forward = f"hostfwd=tcp:127.0.0.1:{self.port}-{HOST_ADDRESS}:443"
            backend = f"user,id=net0,{forward}"
        return ["-netdev", backend, "-device", nic]

    def _pflash(self, tree: Path) -> list[str]:
        variables = self.folder / "nvram.fd"
        if not variables.exists():
            shutil.copyfile(tree / "usr/share/OVMF/OVMF_VARS_4M.fd", variables)
        code = tree / "usr/share/OVMF/OVMF_CODE_4M.fd"
        return [
            *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"),
            *("-drive", f"if=pflash,format=raw,unit=1,file={variables}"),
        ]

    def _connect(self, path: Path) -> socket.socket:
        deadline = time.monotonic() + 20
        while True:
            channel = socket.socket(socket.AF_UNIX)
            try:
                channel.connect(str(path))
                return channel
            except OSError:
                channel.close()
            if self._running().poll() is not None:
                raise MachineDiedError(f"{self.spec.name}: QEMU did not start: {self.errors()}")
            if time.monotonic() > deadline:
                raise MachineError(f"{self.spec.name}: QEMU did not open {path.name}")
            time.sleep(0.02)


@contextmanager
def running(
    spec: MachineSpec, folder: Path, *, tolerate: tuple[str, ...] = ()
) -> Iterator[Machine]:
    """A machine that is on, and is off again at the end."""
    machine = Machine(spec, folder)
    try:
        machine.power_on(tolerate=tolerate)
        yield machine
    finally:
        machine.cut_power()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unchecked_context() -> ssl.SSLContext:
    """For certificates that are compared by fingerprint, or only asked to answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
