"""One power-on of the stick: start QEMU, report the progress, show how to reach it, end it cleanly.

::

    starting --(status screen says ready)--> ready --(Ctrl-C)--> powering off --> off
       |  time-out, failure, QEMU's end                             |  time-out, second Ctrl-C
       +-----------------------> power cut <------------------------+
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from appliance_build.inputs.run import clean_environment, run
from appliance_build.machine.boot_story import BootStory
from appliance_build.machine.kvm_probe import choose_accelerator
from appliance_build.machine.monitor import Monitor
from appliance_build.machine.stick_copy import prepare_stick
from appliance_build.progress import say
from appliance_build.tools.sandbox import loader_argv, qemu_environment

__all__ = ["RunOptions", "RunSession", "SessionError"]

GUEST_ADDRESS = "10.0.2.15"
FIRMWARE = "usr/share/OVMF"
START_TIMEOUT_S = 240.0
POWER_OFF_TIMEOUT_S = 120.0
REMIND_EVERY_S = 15.0
NEXT_COMMANDS = ("host show", "disk list", "vm list")
"""Client commands to try next, besides `claim` if the host isn't claimed yet."""


class SessionError(OSError):
    """The machine did not come up, or did not go down."""


@dataclass(frozen=True)
class RunOptions:
    """What to power on."""

    tools: Path
    image: Path
    folder: Path
    """The folder of the machine's own files, which are kept: stick, disk, firmware variables."""
    client: Path
    """The command that the printed examples name."""
    port: int = 8443
    memory_mib: int = 4096
    disk_gib: int = 20
    fresh: bool = False


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise SessionError("no TCP port of 127.0.0.1 is free")


class RunSession:
    """Powers the machine on and stays with it until it is off."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._code = options.tools / FIRMWARE / "OVMF_CODE_4M.fd"
        self._story = BootStory()
        self._port = _free_port(options.port)
        self._interrupts = 0
        self._started_s = 0.0
        self._sockets = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._serial: socket.socket | None = None

    def run(self) -> None:
        """Run one machine from power-on to power-off."""
        before = signal.signal(signal.SIGINT, self._interrupt)
        self._sockets = Path(tempfile.mkdtemp(prefix="mica-run-"))
        try:
            self._power_on()
            self._wait_ready()
            if not self._interrupts:
                self._show_how()
                self._stay()
            self._power_off()
        finally:
            self._cut()
            shutil.rmtree(self._sockets, ignore_errors=True)
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._interrupts += 1

    # --- power on ---------------------------------------------------------------------------

    def _power_on(self) -> None:
        options = self._options
        options.folder.mkdir(parents=True, exist_ok=True)
        stick = prepare_stick(options.image, options.folder, fresh=options.fresh)
        disk = options.folder / "disk.qcow2"
        environment = qemu_environment(options.tools)
        if not disk.exists():
            make = ["create", "-q", "-f", "qcow2", str(disk), f"{options.disk_gib}G"]
            run([*loader_argv(options.tools, "qemu-img"), *make], timeout_s=60, env=environment)
        variables = options.folder / "nvram.fd"
        if not variables.exists():
            shutil.copyfile(options.tools / FIRMWARE / "OVMF_VARS_4M.fd", variables)
        qemu = loader_argv(options.tools, "qemu-system-x86_64")
        say("seeing whether KVM runs a trial guest")
        accelerator, why = choose_accelerator(qemu, environment, self._code, variables)
        say(f"powering the stick on; the processor is {accelerator.upper()} ({why})")
        self._started_s = time.monotonic()
        with (options.folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*qemu, *accelerator.arguments(), *self._hardware(stick, disk, variables)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(environment),
                start_new_session=True,
            )
        self._serial = self._connect("serial")

    def _hardware(self, stick: Path, disk: Path, variables: Path) -> list[str]:
        options = self._options
        forward = f"hostfwd=tcp:127.0.0.1:{self._port}-{GUEST_ADDRESS}:443"
        words = ["-name", "mica", "-nodefaults", "-no-user-config", "-machine", "q35"]
        words += ["-smp", "2", "-m", str(options.memory_mib), "-display", "none", "-no-reboot"]
        words += ["-device", "VGA", "-device", "qemu-xhci,id=usb", "-device", "virtio-rng-pci"]
        words += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={self._code}"]
        words += ["-drive", f"if=pflash,format=raw,unit=1,file={variables}"]
        words += ["-drive", f"if=none,id=stick,format=raw,file={stick}"]
        words += ["-device", "usb-storage,bus=usb.0,drive=stick,bootindex=1,removable=on"]
        words += ["-drive", f"if=none,id=disk,format=qcow2,discard=unmap,file={disk}"]
        words += ["-device", "virtio-blk-pci,drive=disk,serial=mica-disk-1"]
        words += ["-netdev", f"user,id=net,{forward}", "-device", "virtio-net-pci,netdev=net"]
        for name in ("serial", "qmp"):
            path = self._sockets / name
            words += ["-chardev", f"socket,id={name},path={path},server=on,wait=off"]
        return [*words, "-serial", "chardev:serial", "-mon", "chardev=qmp,mode=control"]

    def _connect(self, name: str) -> socket.socket:
        deadline = time.monotonic() + 20
        while True:
            channel = socket.socket(socket.AF_UNIX)
            try:
                channel.connect(str(self._sockets / name))
                return channel
            except OSError:
                channel.close()
            self._alive()
            if time.monotonic() > deadline:
                raise SessionError("QEMU does not open its serial line")
            time.sleep(0.05)

    def _alive(self) -> None:
        if self._process is None or self._process.poll() is not None:
            log = self._options.folder / "qemu.log"
            tail = log.read_text(errors="replace").strip()[-500:]
            raise SessionError(f"QEMU has ended: {tail or 'without a word'}")

    # --- while it runs ----------------------------------------------------------------------

    def _read(self, timeout_s: float) -> bool:
        """Read the serial line for a while; return whether it is still open."""
        assert self._serial is not None
        ready, _, _ = select.select([self._serial], [], [], timeout_s)
        if not ready:
            return True
        try:
            data = self._serial.recv(65536)
        except OSError:
            data = b""
        for line in self._story.feed(data):
            print(f"  {time.monotonic() - self._started_s:6.1f} s | {line}", flush=True)
        return bool(data)

    def _wait_ready(self) -> None:
        deadline = self._started_s + START_TIMEOUT_S
        reminder = time.monotonic() + REMIND_EVERY_S
        while not self._story.status.complete() and not self._interrupts:
            if not self._read(0.5):
                self._alive()
                time.sleep(0.2)
            if self._story.status.failure:
                raise SessionError(f"the start failed: {self._story.status.failure}")
            now = time.monotonic()
            if now > deadline:
                raise SessionError(
                    f"no API after {START_TIMEOUT_S:.0f} s; the start stands at {self._story.stage}"
                )
            if now > reminder:
                say(f"waiting for {self._story.stage}")
                reminder = now + REMIND_EVERY_S

    def _show_how(self) -> None:
        status, client = self._story.status, self._options.client
        shown = os.path.relpath(client)
        host = f"127.0.0.1:{self._port}"
        print(f"\nMica is ready, {time.monotonic() - self._started_s:.0f} s after power-on.")
        print(f"  API              https://{host}/v1")
        print(f"  TLS fingerprint  {status.fingerprint}")
        claim = "claimed already" if status.claimed else status.claim_code
        print(f"  Claim code       {claim}\n")
        print("Try, in another terminal:")
        if not status.claimed:
            print(
                f"  {shown} claim {host} --code {status.claim_code} "
                f"--fingerprint {(status.fingerprint or '').replace(' ', '')}"
            )
        for words in NEXT_COMMANDS if status.claimed else NEXT_COMMANDS[:2]:
            print(f"  {shown} {words}")
        print("\nCtrl-C powers it off.", flush=True)

    def _stay(self) -> None:
        while not self._interrupts:
            if not self._read(0.5):
                assert self._process is not None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=5)
                    say("the machine has powered itself off")
                    return

    # --- power off --------------------------------------------------------------------------

    def _power_off(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            return
        say("pressing the power button; Ctrl-C again cuts the power")
        presses = self._interrupts
        monitor = Monitor(self._sockets / "qmp")
        monitor.command("system_powerdown")
        started = time.monotonic()
        reminder = started + REMIND_EVERY_S
        while self._process.poll() is None:
            if not self._read(0.5):
                time.sleep(0.1)
            now = time.monotonic()
            if self._interrupts > presses:
                say("cutting the power")
                return
            if now - started > POWER_OFF_TIMEOUT_S:
                raise SessionError(
                    f"the machine is not off {POWER_OFF_TIMEOUT_S:.0f} s after its power button "
                    "was pressed; its power is cut"
                )
            if now > reminder:
                say("waiting for the machine to end its guests and power off")
                reminder = now + REMIND_EVERY_S
        monitor.close()
        say("the machine is off")

    def _cut(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=30)
        if self._serial is not None:
            self._serial.close()
