"""Which QEMU there is: its version, what depends on that, and the machine types to pin."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vmkernel.devices import Family
from vmkernel.host import Runner
from vmkernel.model import ErrorCode, MicaError

__all__ = ["PROGRAM", "QemuProgram", "probe_qemu"]

PROGRAM = "qemu-system-x86_64"
_VERSION = re.compile(rb"version (\d+)\.(\d+)")
_HUB_SINCE = (10, 0)
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class QemuProgram:
    """An installed QEMU."""

    version: tuple[int, int]

    @property
    def has_hub(self) -> bool:
        """True where one serial line can feed a socket and a ring buffer."""
        return self.version >= _HUB_SINCE

    def machine_type(self, family: Family) -> str:
        """The newest machine type of a family, by its full name."""
        chipset = {Family.Q35: "q35", Family.PC: "i440fx"}[family]
        return f"pc-{chipset}-{self.version[0]}.{self.version[1]}"


async def probe_qemu(runner: Runner) -> QemuProgram:
    """Ask QEMU for its version."""
    completed = await runner.run([PROGRAM, "--version"], timeout_s=_TIMEOUT_S)
    match = _VERSION.search(completed.stdout)
    if match is None:
        raise MicaError(ErrorCode.UNAVAILABLE, f"{PROGRAM} does not tell its version.")
    return QemuProgram(version=(int(match[1]), int(match[2])))
