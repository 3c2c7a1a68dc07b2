"""All that the appliance's platform reads of the machine and does to it, as one value: a test gives
folders and fakes instead, and needs neither root nor hardware.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmkernel.host import rtnetlink
from vmkernel.host.kernel_log import kernel_log, silence_kernel
from vmkernel.host.sysfs import DEV, PROC, SYS
from vmkernel.host.system import System
from vmkernel.host.uevents import Uevent, UeventSocket
from vmkernel.platform.api_probe import api_answers
from vmkernel.platform.links import link_addresses
from vmkernel.platform.stick_settings import ReadStick, read_from_esp

__all__ = ["DeviceEvents", "LinkChanges", "MachineAccess", "boot_clock"]


class DeviceEvents(Protocol):
    def fileno(self) -> int: ...

    def read(self, handle: Callable[[Uevent | None], None]) -> None:
        """Hand on everything that is there now."""
        ...

    def close(self) -> None: ...


class LinkChanges(Protocol):
    def fileno(self) -> int: ...

    def drain(self, changed: Callable[[], None]) -> None:
        """Read what is pending and call `changed`."""
        ...

    def close(self) -> None: ...


def boot_clock() -> float:
    """Seconds since the kernel started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class MachineAccess:
    """The real machine, except for what is passed in."""

    system: System
    sys: Path = SYS
    proc: Path = PROC
    dev: Path = DEV
    etc: Path = Path("/etc")
    systemd_run: Path = Path("/run/systemd")
    """The files of networkd and timesyncd."""
    boot_clock: Callable[[], float] = boot_clock
    device_events: Callable[[], DeviceEvents] = UeventSocket
    link_changes: Callable[[], LinkChanges] = rtnetlink.ChangeSocket
    addresses: Callable[[tuple[str, ...]], tuple[str, ...]] = link_addresses
    """The addresses of the named interfaces."""
    kernel_log: Callable[[], str] = kernel_log
    silence_kernel: Callable[[int], None] = silence_kernel
    api_answers: Callable[[], Awaitable[bool]] = api_answers
    read_stick: ReadStick = read_from_esp
