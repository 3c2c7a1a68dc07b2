"""The VM side of a host: its parts by role, and their life. Callers take the part that they need.

inventory    which VMs there are, and the way to each one's driver
usage        which of them use a volume, an image or a datastore
changes      making, changing and deleting them
power        starting and ending guests
consoles     serial lines, screens, keyboards
clones() snapshots() backups() live_disks()
             made, and their code loaded, when they are first needed: an idle host with VMs needs
             none of them
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vmkernel.aio import BackgroundTasks
from vmkernel.model import Finding, MicaError
from vmkernel.vm.changes import VmChanges
from vmkernel.vm.consoles import VmConsoles
from vmkernel.vm.context import VmContext
from vmkernel.vm.folders import VmFolders
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.lifecycle.agent_watch import watch_agents
from vmkernel.vm.lifecycle.autostart import Autostart
from vmkernel.vm.ports import Operations
from vmkernel.vm.power import VmPower
from vmkernel.vm.spec_review import SpecReview
from vmkernel.vm.usage import VmUsage

if TYPE_CHECKING:
    from vmkernel.vm.backup.service import VmBackups
    from vmkernel.vm.clone.service import Clones
    from vmkernel.vm.live_disks import VmLiveDisks
    from vmkernel.vm.snapshot_service import Snapshots

__all__ = ["VmSide"]

_log = logging.getLogger(__name__)

_SETTLED_S = 20.0
"""By then the start of a slow host is over, and what can wait no longer competes with it."""
_KEYS_S = 5.0
"""Between two rounds over VMs whose keys are to be looked at: a status may be as old as that."""


class VmSide:
    """See the module."""

    def __init__(self, host: VmContext, operations: Operations) -> None:
        self.host = host
        self._operations = operations
        self._tasks = BackgroundTasks()
        self.inventory = VmInventory(host)
        self._folders = VmFolders(host, self.inventory, self._tasks)
        self._review = SpecReview(host, self.inventory.reservations)
        self.usage = VmUsage(host, self.inventory, self._folders)
        self.changes = VmChanges(host, self.inventory, self._review)
        self.power = VmPower(host, self.inventory, self._review, operations)
        self.consoles = VmConsoles(self.inventory)
        self._live_disks: VmLiveDisks | None = None
        self._snapshots: Snapshots | None = None
        self._backups: VmBackups | None = None

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the VMs of all datastores and find again those that run."""
        self.host.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._tasks.begin(self._probe_host(), "vm-surroundings")
        self._tasks.begin(self.host.network.run(), "ports")
        await self._folders.start()
        self._tasks.begin(watch_agents(self.inventory), "guest-agents")
        self._tasks.begin(self._watch_keys(), "secure-boot-keys")
        self._tasks.begin(self._settle_moves(0), "settle-moves")
        self.host.storage.on_datastore_change(self._datastore_changed)
        autostart = Autostart(
            self.host, self.inventory, self._folders, self._review, self._operations
        )
        self._tasks.begin(autostart.run(), "autostart")

    async def stop(self) -> None:
        """Stop; running VMs keep running."""
        if self._backups is not None:
            await self._backups.close()
        self._tasks.cancel()
        await self.inventory.stop()
        await self._tasks.ended()
        await self.host.launcher.close()
        self.host.logs.close()

    async def _probe_host(self) -> None:
        """Find out, before a request asks, what the first start would have to wait for.

        Asking QEMU costs a second on a slow machine, which the host's own start needs more.
        """
        await self.host.kvm()
        await asyncio.sleep(_SETTLED_S)
        try:
            await self.host.program()
        except MicaError as error:
            _log.warning("no VM can be started: %s", error)

    async def _watch_keys(self) -> None:
        """Read the Secure Boot keys of each VM that has stopped, one after the other."""
        while True:
            for driver in self.inventory.drivers():
                if driver.unseen_keys:
                    await driver.refresh_keys()
            await asyncio.sleep(_KEYS_S)

    def _datastore_changed(self, _: str, available: bool) -> None:
        if available:
            self._tasks.begin(self._settle_moves(_SETTLED_S), "settle-moves")

    async def _settle_moves(self, delay_s: float) -> None:
        """Complete what the previous vmkernel was doing to the disks of running VMs."""
        await asyncio.sleep(delay_s)
        for driver in self.inventory.drivers():
            await driver.ready()
        if any(driver.active for driver in self.inventory.drivers()):
            await self.live_disks().settle()

    def findings(self) -> Iterator[Finding]:
        """What is wrong with VMs and their folders."""
        yield from self._folders.clashes.values()
        yield from self.inventory.findings()

    # --- parts that are made when they are first needed -----------------------------------------

    def live_disks(self) -> VmLiveDisks:
        """What changes the volumes that VMs have open."""
        if self._live_disks is None:
            from vmkernel.vm.live_disks import VmLiveDisks

            self._live_disks = VmLiveDisks(self.inventory, self.usage, self.host, self._tasks)
        return self._live_disks

    def clones(self) -> Clones:
        """Makes VMs of others; holds nothing, so there is no need to keep it."""
        from vmkernel.vm.clone.service import Clones

        return Clones(
            self.inventory, self.changes, self.host, self._operations, self._folders.cloning
        )

    def snapshots(self) -> Snapshots:
        """Points that VMs can go back to."""
        if self._snapshots is None:
            from vmkernel.vm.snapshot_service import Snapshots

            self._snapshots = Snapshots(self.inventory, self._review, self.host, self._operations)
        return self._snapshots

    def backups(self, make_scratch: Callable[[str, int], Awaitable[Path]]) -> VmBackups:
        """What keeps disks readable for backups."""
        if self._backups is None:
            from vmkernel.vm.backup.service import VmBackups

            self._backups = VmBackups(self.inventory, self.host, make_scratch, self._tasks)
        return self._backups
