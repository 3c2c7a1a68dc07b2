"""What the VMs of a host are compared with: the tools tree's QEMU, started by hand."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from appliance_build.tools.sandbox import loader_argv, qemu_environment
from remote_api.client.sdk import Mica
from tests.framework import inputs
from tests.framework.ending import started
from tests.framework.guest.build import COMMAND_LINE
from tests.framework.guest_images import upload_guest
from tests.framework.hosted import HostedMica
from vmkernel.model import (
    BootSpec,
    DatastoreKind,
    DatastoreSpec,
    DiskSpec,
    DisplayModel,
    Firmware,
    KernelBoot,
    VmSpec,
)

__all__ = [
    "ACCELERATOR",
    "ByHand",
    "DATASTORE",
    "FIRST_LINE",
    "add_guest",
    "by_hand",
    "command_line",
    "guest_spec",
    "plain",
    "qemu",
]

DATASTORE = "main"
FIRST_LINE = "MICA GUEST READY"
MIB = 1 << 20
ACCELERATOR = "tcg,thread=multi,tb-size=256"
"""What hosted mode gives a VM without KVM."""


def add_guest(host: HostedMica, mica: Mica, datastore: Path | None = None) -> None:
    """Give a fresh host a datastore with the test guest's kernel and initrd."""
    path = datastore or host.datastore_folder(DATASTORE)
    spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(path))
    mica.wait(mica.create_datastore(DATASTORE, spec))
    upload_guest(mica, datastore=DATASTORE)


def guest_spec(memory_mib: int, disks: tuple[DiskSpec, ...] = ()) -> VmSpec:
    """A VM that boots the test guest."""
    boot = KernelBoot(kernel="kernel", initrd="initrd", cmdline=COMMAND_LINE)
    return VmSpec(
        datastore=DATASTORE,
        memory_bytes=memory_mib * MIB,
        firmware=Firmware.BIOS,
        boot=BootSpec(kernel=boot),
        display=DisplayModel.NONE,
        disks=disks,
    )


def qemu(*arguments: str) -> list[str]:
    """The words that start QEMU, and nothing that nobody asked for in it."""
    program = loader_argv(inputs.tools(), "qemu-system-x86_64")
    return [*program, "-no-user-config", "-nodefaults", "-display", "none", *arguments]


def command_line(vm_id: str, folder: Path) -> list[str]:
    """The words that a host in `folder` started a VM's QEMU with."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")[:-1]
        except OSError:
            continue
        if f"guest={vm_id},debug-threads=on" in words and any(str(folder) in w for w in words):
            return words
    raise AssertionError(f"VM {vm_id} of {folder} does not run")


def plain(words: Sequence[str]) -> list[str]:
    """The same machine with its serial line on stdin and stdout, and nobody to manage it."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "-S":
            continue
        if word in ("-mon", "-chardev"):
            value = next(rest)
            name = re.search(r"(?:^|,)id=([^,]+)", value)
            if word == "-mon" or (name and name[1] in ("qmp", "serial0-ring", "serial0-socket")):
                continue
            if name and name[1] == "serial0-hub":
                value = "stdio,id=serial0-hub,signal=off"
            elif ",fd=" in value and name:
                value = f"null,id={name[1]}"
            kept += [word, value]
            continue
        kept.append(word)
    return kept


class ByHand:
    """A QEMU of ours, whose serial line is its stdin and stdout."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        self._log = log
        self._text = b""
        with log.open("wb") as errors:
            self.process = started(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **qemu_environment(inputs.tools())},
                start_new_session=True,  # as VMs are: the scheduler shares by sessions
            )

    def until(self, pattern: str, timeout_s: float = 120.0) -> str:
        """What the guest says until a line matches."""
        assert self.process.stdout is not None
        end = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not (found := re.search(pattern.encode() + rb".*\n", self._text)):
                assert selector.select(end - time.monotonic()), f"{pattern!r} did not come"
                data = os.read(self.process.stdout.fileno(), 1 << 16)
                assert data, f"QEMU ended: {self._log.read_text()}"
                self._text += data
        said, self._text = self._text[: found.end()], self._text[found.end() :]
        return said.decode(errors="replace")

    def ask(self, command: str, pattern: str, timeout_s: float = 120.0) -> str:
        """Give the guest a command, and what it says until a line matches."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        return self.until(pattern, timeout_s)

    def end(self) -> None:
        """End it at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def by_hand(argv: Sequence[str], log: Path) -> Iterator[ByHand]:
    """A QEMU that runs for a while."""
    machine = ByHand(argv, log)
    try:
        yield machine
    finally:
        machine.end()
