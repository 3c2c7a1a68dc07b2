"""Whether this host's KVM works: a guest like the real one must get through its firmware.

A ``/dev/kvm`` can be there, answer, and run a small guest, and yet hang every ordinary one. So the
trial guest is the machine that is to run (q35, two processors, UEFI) without anything to start: its
firmware says so on the serial line once processors, timers and interrupts have done their part.
"""

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from appliance_build.inputs.run import clean_environment

__all__ = ["Accelerator", "choose_accelerator", "guest_speaks", "trial_machine"]

VARIABLE = "MICA_ACCELERATOR"
DEVICE = Path("/dev/kvm")
TIMEOUT_S = 20.0
SPOKEN = b"BdsDxe"
"""The part of UEFI firmware (EDK II) that selects what to boot, by the name it prints."""


class Accelerator(StrEnum):
    """How QEMU runs the machine's processor."""

    KVM = "kvm"
    TCG = "tcg"

    def arguments(self) -> list[str]:
        """Return QEMU's arguments; emulated or not, the machine has AMD's or the host's KVM."""
        if self is Accelerator.KVM:
            return ["-accel", "kvm", "-cpu", "host"]
        return ["-accel", "tcg,thread=multi", "-cpu", "EPYC"]


def trial_machine(accelerator: str, code: Path, variables: Path) -> list[str]:
    """Return QEMU's arguments for the trial guest; `variables` is read and not written."""
    return [
        *("-nodefaults", "-no-user-config", "-display", "none", "-machine", f"q35,{accelerator}"),
        *("-smp", "2", "-m", "256", "-no-reboot", "-net", "none", "-serial", "stdio"),
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"),
        *("-drive", f"if=pflash,format=raw,unit=1,snapshot=on,file={variables}"),
    ]


def guest_speaks(argv: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> bool:
    """Return whether the trial guest's firmware reached its boot manager in time."""
    deadline = time.monotonic() + timeout_s
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(environment),
        )
    except OSError:
        return False
    seen = b""
    with process:
        assert process.stdout is not None
        while SPOKEN not in seen and (left := deadline - time.monotonic()) > 0:
            if not select.select([process.stdout], [], [], left)[0]:
                break
            data = os.read(process.stdout.fileno(), 1 << 12)
            if not data:
                break
            seen += data
        process.kill()
    return SPOKEN in seen


def choose_accelerator(
    qemu: Sequence[str],
    environment: Mapping[str, str],
    code: Path,
    variables: Path,
    *,
    wish: str | None = None,
    device: Path = DEVICE,
    timeout_s: float = TIMEOUT_S,
) -> tuple[Accelerator, str]:
    """Return what to use and why, as a sentence. ``MICA_ACCELERATOR=tcg|kvm`` decides it."""
    wish = os.environ.get(VARIABLE, "") if wish is None else wish
    if wish:
        return Accelerator(wish), f"{VARIABLE} says so"
    if not os.access(device, os.R_OK | os.W_OK):
        return Accelerator.TCG, f"{device} is missing or not ours to use"
    argv = [*qemu, *trial_machine("accel=kvm", code, variables), "-cpu", "host"]
    if not guest_speaks(argv, environment, timeout_s):
        return Accelerator.TCG, f"a trial guest on {device} said nothing in {timeout_s:.0f} s"
    return Accelerator.KVM, "a trial guest ran on it"
