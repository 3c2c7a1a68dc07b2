"""The differences between the modes, as one protocol; each mode is one module beside this one.

adapters_appliance.py   systemd units, bridge and taps, a raw partition, the machine's disks
adapters_hosted.py      child processes, user networking, a file, directories; no root
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmkernel.control.handlers.host import HostService
from vmkernel.events import EventBus
from vmkernel.host.runner import Runner
from vmkernel.host.worker import Workers
from vmkernel.operations import OperationRegistry
from vmkernel.platform import PlatformContext
from vmkernel.state import Medium, StateStore
from vmkernel.storage.service import StorageService
from vmkernel.vm.side import VmSide

__all__ = ["Adapters", "OpenedMedium", "Platform"]


@dataclass(frozen=True)
class OpenedMedium:
    """The place of the state log, or why there is none."""

    medium: Medium | None
    reason: str = ""
    shadow: Path | None = None
    """A copy of the last commit that lasts until power-off."""


class Platform(HostService, Protocol):
    def stage(self, text: str) -> None:
        """Show a line of progress on the console."""
        ...

    def bind(self, surroundings: PlatformContext) -> None:
        """Give it the rest of the vmkernel."""
        ...

    def serving(self) -> None:
        """Requests are answered from now on."""
        ...

    def run(self) -> Awaitable[None]:
        """Look after the machine until cancelled."""
        ...


class Adapters(Protocol):
    @property
    def runner(self) -> Runner: ...

    @property
    def workers(self) -> Workers:
        """Starts confined processes for data from outside."""
        ...

    @property
    def platform(self) -> Platform:
        """The machine below; it exists from the first moment."""
        ...

    @property
    def keeps_claim_code(self) -> bool:
        """True if the run folder lasts exactly as long as this boot."""
        ...

    async def check_programs(self) -> None:
        """Look at what guests need to run. Raises StartRefusedError if that is hopeless."""
        ...

    async def open_medium(self) -> OpenedMedium:
        """Find the place of the state log."""
        ...

    async def apply_settings(self, store: StateStore, events: EventBus) -> None:
        """Take the settings that wait beside the state; never raises."""
        ...

    def make_storage(
        self, store: StateStore, operations: OperationRegistry, events: EventBus
    ) -> StorageService:
        """Storage with this mode's kinds of datastores."""
        ...

    def make_vms(
        self, storage: StorageService, operations: OperationRegistry, events: EventBus
    ) -> VmSide | None:
        """The VM side; None if it isn't available."""
        ...

    async def guests_end_with_us(self) -> float | None:
        """How long the guests may take to end before the vmkernel does; None: they run on."""
        ...

    def close(self) -> None:
        """Close everything; called last."""
        ...
