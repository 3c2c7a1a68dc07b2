"""Whether this host's KVM can be trusted: a real guest must come to its end on it, in time.

A ``/dev/kvm`` can be there, answer, and never run a guest to its end. The guest here is QEMU's
own BIOS: it looks for something to start, finds nothing, and resets, which ends QEMU.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from appliance_build.inputs.run import clean_environment

__all__ = ["Accelerator", "choose_accelerator"]

VARIABLE = "MICA_ACCELERATOR"
DEVICE = Path("/dev/kvm")
TIMEOUT_S = 20.0


class Accelerator(StrEnum):
    """How QEMU runs the machine's processor."""

    KVM = "kvm"
    TCG = "tcg"

    def arguments(self) -> list[str]:
        """Return QEMU's arguments; emulated or not, the machine has AMD's or the host's KVM."""
        if self is Accelerator.KVM:
            return ["-accel", "kvm", "-cpu", "host"]
        return ["-accel", "tcg,thread=multi", "-cpu", "EPYC"]


def _guest_ends(qemu: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> bool:
    argv = [
        *qemu,
        *("-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc,accel=kvm"),
        *("-m", "64", "-no-reboot", "-boot", "menu=off,reboot-timeout=1"),
    ]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env=clean_environment(environment),
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return done.returncode == 0


def choose_accelerator(
    qemu: Sequence[str],
    environment: Mapping[str, str],
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
    if not _guest_ends(qemu, environment, timeout_s):
        return Accelerator.TCG, f"a short test guest on {device} did not end in {timeout_s:.0f} s"
    return Accelerator.KVM, "a short test guest ran on it to its end"
