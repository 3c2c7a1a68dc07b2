"""Whether KVM works: from a check of the device to running a short real guest.

The check costs nothing and is enough if we know the kernel (the appliance). On a foreign machine
`/dev/kvm` may exist and answer, but never complete a guest's run: only a guest shows that.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware.guest_firmware import UefiFiles
from vmkernel.host.errors import CommandError
from vmkernel.host.runner import Runner
from vmkernel.host.trial_guest import boot_disk, trial_guest
from vmkernel.model import ErrorCode

__all__ = ["KvmProbe", "glance_at_kvm", "open_kvm", "try_kvm", "wait_for_kvm"]

_DEVICE = Path("/dev/kvm")
_KVM_GET_API_VERSION = 0xAE00
_KVM_CREATE_VM = 0xAE01
_API_VERSION = 12
_GUEST_TIMEOUT_S = 20.0
_MODULE_TIMEOUT_S = 60.0
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True)
class KvmProbe:
    """The result of a probe."""

    usable: bool
    reason: str | None = None
    """Why KVM can't be used, as a sentence."""


def open_kvm(device: Path = _DEVICE) -> int:
    """A descriptor of KVM, for a QEMU that can't open it itself."""
    return os.open(device, os.O_RDWR | os.O_CLOEXEC)


def glance_at_kvm(device: Path = _DEVICE) -> KvmProbe:
    """Open the device, read its version, create an empty machine."""
    try:
        fd = open_kvm(device)
    except FileNotFoundError:
        return KvmProbe(
            False,
            "There is no /dev/kvm: hardware virtualisation is missing or disabled.",
        )
    except OSError as error:
        return KvmProbe(False, f"{device} can't be opened: {error.strerror}.")
    try:
        version = fcntl.ioctl(fd, _KVM_GET_API_VERSION, 0)
        if version != _API_VERSION:
            return KvmProbe(False, f"{device} has version {version}, not {_API_VERSION}.")
        os.close(fcntl.ioctl(fd, _KVM_CREATE_VM, 0))
    except OSError as error:
        return KvmProbe(False, f"{device} can't create a VM: {error.strerror}.")
    finally:
        os.close(fd)
    return KvmProbe(True)


async def wait_for_kvm(
    timeout_s: float = _MODULE_TIMEOUT_S,
    *,
    device: Path = _DEVICE,
    processor: Path = Path("/proc/cpuinfo"),
) -> None:
    """Return when the device exists; at once if the processor can't have it. The module is loaded
    late in the boot, after what the boot itself needs.
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
    runner: Runner,
    *,
    uefi: UefiFiles | None = None,
    data_dirs: Sequence[Path] = (),
    accelerator: str = "kvm",
    timeout_s: float = _GUEST_TIMEOUT_S,
) -> KvmProbe:
    """Run the guest of `trial_guest` until its first output, for at most `timeout_s`, and end it.

    If virtualisation works, that takes a second or two. `uefi` and `data_dirs` are where this
    host's guests get their firmware; `accelerator` is for tests.
    """
    if accelerator == "kvm":
        glance = glance_at_kvm()
        if not glance.usable:
            return glance
    disk = os.memfd_create("trial-guest")
    try:
        os.write(disk, boot_disk())
        guest = trial_guest(
            accelerator, uefi=uefi, disk=Path(f"/dev/fd/{disk}"), data_dirs=data_dirs
        )
        await runner.run(
            ["qemu-system-x86_64", *guest.arguments],
            timeout_s=timeout_s,
            on_stdout=_listen_for(guest.says),
            pass_fds=(disk,),
        )
    except _SpokenError:
        return KvmProbe(True)
    except CommandError as error:
        if error.problem.code is ErrorCode.TIMED_OUT:
            said = (
                f"printed nothing within {timeout_s:g} s, so KVM doesn't work reliably on this host"
            )
            return KvmProbe(False, f"A trial guest on /dev/kvm {said}.")
        return KvmProbe(False, f"A trial guest did not run on /dev/kvm: {error}")
    finally:
        os.close(disk)
    return KvmProbe(False, "A trial guest on /dev/kvm ended without output.")


class _SpokenError(Exception):
    """The guest has written what was waited for, so its program can be ended."""


def _listen_for(wanted: bytes) -> Callable[[bytes], None]:
    """A sink that raises once `wanted` has been written; it keeps no more than needed."""
    seen = b""

    def listen(data: bytes) -> None:
        nonlocal seen
        seen += data
        if wanted in seen:
            raise _SpokenError
        seen = seen[-len(wanted) :]

    return listen
