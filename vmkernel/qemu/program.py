"""The installed QEMU: its version, what depends on that, and the machine types to pin."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from vmkernel.devices import Family
from vmkernel.host import Runner
from vmkernel.model import ErrorCode, MicaError

__all__ = ["PROGRAM", "QemuProgram", "probe_qemu"]

PROGRAM = "qemu-system-x86_64"
_VERSION = re.compile(rb"version (\d+)\.(\d+)")
_MACHINE = re.compile(rb"^(pc-(?:q35|i440fx)-[0-9.]+)\s", re.MULTILINE)
_HUB_SINCE = (10, 0)
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class QemuProgram:
    version: tuple[int, int]
    machines: frozenset[str] = frozenset()
    """The machine types that it offers; empty if unknown."""

    @property
    def has_hub(self) -> bool:
        """True if one serial line can feed a socket and a ring buffer."""
        return self.version >= _HUB_SINCE

    def machine_type(self, family: Family) -> str:
        """The newest machine type of a family, by its full name."""
        chipset = {Family.Q35: "q35", Family.PC: "i440fx"}[family]
        return f"pc-{chipset}-{self.version[0]}.{self.version[1]}"

    def check_machine(self, vm_id: str, machine_type: str) -> None:
        """Raise `unavailable` if a VM's machine type isn't offered: too new, or removed by now."""
        if not self.machines or machine_type in self.machines:
            return
        family = Family.of(machine_type)
        chipset = "pc-q35-" if family is Family.Q35 else "pc-i440fx-"
        offered = sorted((m for m in self.machines if m.startswith(chipset)), key=_version_of)
        between = f"{offered[0]} to {offered[-1]}" if offered else "no such machine"
        raise MicaError(
            ErrorCode.UNAVAILABLE,
            f"VM {vm_id} was made for the machine {machine_type}, and this host's QEMU"
            f" {self.version[0]}.{self.version[1]} offers {between}: run it on a Mica that has it,"
            " or make a new VM with its disks.",
        )


async def probe_qemu(runner: Runner) -> QemuProgram:
    async with asyncio.TaskGroup() as group:
        version = group.create_task(runner.run([PROGRAM, "--version"], timeout_s=_TIMEOUT_S))
        machines = group.create_task(
            runner.run([PROGRAM, "-machine", "help"], timeout_s=_TIMEOUT_S)
        )
    match = _VERSION.search(version.result().stdout)
    if match is None:
        raise MicaError(ErrorCode.UNAVAILABLE, f"{PROGRAM} does not report its version.")
    return QemuProgram(
        version=(int(match[1]), int(match[2])),
        machines=frozenset(name.decode() for name in _MACHINE.findall(machines.result().stdout)),
    )


def _version_of(machine_type: str) -> tuple[int, ...]:
    return tuple(int(part) for part in machine_type.rpartition("-")[2].split(".") if part.isdigit())
