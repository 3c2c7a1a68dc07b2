"""Whether KVM can be trusted: from a glance at the device to a short real guest.

A glance costs nothing and is enough where we know the kernel (the appliance). On a foreign
machine `/dev/kvm` may be there, answer, and never run a guest to its end: only a guest tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from vmkernel.host.errors import CommandError
from vmkernel.host.runner import Runner

__all__ = ["KvmProbe", "glance_at_kvm", "open_kvm", "try_kvm", "wait_for_kvm"]

_DEVICE = Path("/dev/kvm")
_KVM_GET_API_VERSION = 0xAE00
_KVM_CREATE_VM = 0xAE01
_API_VERSION = 12
_GUEST_TIMEOUT_S = 15.0
_MODULE_TIMEOUT_S = 60.0
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True)
class KvmProbe:
    """What was found out."""

    usable: bool
    reason: str | None = None
    """Why not, as a sentence."""


def open_kvm(device: Path = _DEVICE) -> int:
    """A descriptor of KVM, for a QEMU that can't open it."""
    return os.open(device, os.O_RDWR | os.O_CLOEXEC)


def glance_at_kvm(device: Path = _DEVICE) -> KvmProbe:
    """Open the device, ask its version, make an empty machine."""
    try:
        fd = open_kvm(device)
    except FileNotFoundError:
        return KvmProbe(
            False,
            "There is no /dev/kvm: the processor's virtualisation is missing or switched off.",
        )
    except OSError as error:
        return KvmProbe(False, f"{device} can't be opened: {error.strerror}.")
    try:
        version = fcntl.ioctl(fd, _KVM_GET_API_VERSION, 0)
        if version != _API_VERSION:
            return KvmProbe(False, f"{device} speaks version {version}, not {_API_VERSION}.")
        os.close(fcntl.ioctl(fd, _KVM_CREATE_VM, 0))
    except OSError as error:
        return KvmProbe(False, f"{device} makes no machine: {error.strerror}.")
    finally:
        os.close(fd)
    return KvmProbe(True)


async def wait_for_kvm(
    timeout_s: float = _MODULE_TIMEOUT_S,
    *,
    device: Path = _DEVICE,
    processor: Path = Path("/proc/cpuinfo"),
) -> None:
    """Return once the device is there, where the processor is one that it will come for.

    While the machine starts, its module is loaded after what the start itself needs.
    """
    try:
        flags = processor.read_text(errors="replace").partition("\nflags")[2].partition("\n")[0]
    except OSError:
        return
    if not {"svm", "vmx"} & set(flags.split()):
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not device.exists():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(_LOOK_AGAIN_S)


async def try_kvm(
    runner: Runner, *, accelerator: str = "kvm", timeout_s: float = _GUEST_TIMEOUT_S
) -> KvmProbe:
    """Let the guests' own BIOS run until it finds nothing to start, gives up and resets.

    That takes a processor through its real, protected and system management modes, PCI, timers
    and interrupts, in well under a second where virtualisation works. `accelerator` is for tests.
    """
    if accelerator == "kvm":
        glance = glance_at_kvm()
        if not glance.usable:
            return glance
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-machine", f"pc,accel={accelerator}", "-m", "64", "-no-reboot"]
    argv += ["-boot", "menu=off,reboot-timeout=1"]
    try:
        await runner.run(argv, timeout_s=timeout_s)
    except CommandError as error:
        return KvmProbe(False, f"A short guest did not run to its end on /dev/kvm: {error}")
    return KvmProbe(True)
