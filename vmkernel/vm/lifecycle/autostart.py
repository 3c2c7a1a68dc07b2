"""Starting VMs with their host: once a boot, in order, as their datastores become available.

Progress is stored beside the sockets, with the boot's name: a vmkernel that restarts in the same
boot continues there, and starts nothing twice. Only datastores that the host knew when it booted
count: the VMs of one that is adopted later are not started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from itertools import groupby
from pathlib import Path

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.host.files import RECORD_MAX_BYTES, read_limited, write_lightly
from vmkernel.model import MicaError, Record, Subject, WaitFor
from vmkernel.vm.context import VmContext
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.folders import VmFolders
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.ports import OperationHandle, Operations
from vmkernel.vm.spec_review import SpecReview
from vmkernel.vm.states import VmRequest

__all__ = ["Autostart"]

_log = logging.getLogger(__name__)

_FILE = "autostart.json"
_LOOK_S = 0.5
_AT_ONCE = 4
"""Starts of one group that are under way together."""
ACTOR = "autostart"


class _Done(Record, frozen=True, kw_only=True):
    """The progress of starting this boot's VMs."""

    boot: str
    waiting: tuple[str, ...]
    """Datastores whose VMs are still to be started."""
    handled: tuple[str, ...] = ()
    """VMs that were started, or could not be."""


class Autostart:
    """One boot's; `run` it once."""

    def __init__(
        self,
        host: VmContext,
        inventory: VmInventory,
        folders: VmFolders,
        review: SpecReview,
        operations: Operations,
    ) -> None:
        self._host = host
        self._inventory = inventory
        self._folders = folders
        self._review = review
        self._operations = operations
        self._path = host.run_dir.parent / _FILE
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Start VMs as that becomes possible; ends once nothing is left."""
        done = _read(self._path)
        if done is None or done.boot != self._host.boot_name:
            waiting = self._host.storage.known_datastores()
            done = _Done(boot=self._host.boot_name, waiting=waiting)
            self._write(done)
        if not done.waiting:
            return
        self._host.storage.on_datastore_change(lambda _name, _available: self._changed.set())
        await self._host.kvm()
        await self._settle(done)
        while done.waiting and not self._host.ending.is_set():
            self._changed.clear()
            await self._folders.all_loaded()
            there = set(self._host.storage.datastores())
            last = set(done.waiting) <= there
            for _, group in groupby(sorted(self._candidates(done, there, last), key=_rank), _rank):
                done = await self._start_group(list(group), done)
            waiting = tuple(name for name in done.waiting if self._open(name, done, there))
            if waiting != done.waiting:
                done = _Done(boot=done.boot, waiting=waiting, handled=done.handled)
                self._write(done)
            if done.waiting:
                await self._changed.wait()

    async def _settle(self, done: _Done) -> None:
        """Give slow datastores a while, so that the order holds among all VMs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._host.timing.datastores_s):
                while not set(done.waiting) <= set(self._host.storage.datastores()):
                    self._changed.clear()
                    await self._changed.wait()

    def _candidates(self, done: _Done, there: set[str], last: bool) -> list[VmDriver]:
        """VMs to be started now; those with disks on other datastores wait until
        all are available.
        """
        return [
            driver
            for driver in self._wanted(done)
            if driver.definition.spec.datastore in there and (last or self._has_disks(driver))
        ]

    def _wanted(self, done: _Done) -> list[VmDriver]:
        return [
            driver
            for driver in self._inventory.drivers()
            if driver.definition.spec.autostart.enabled
            and driver.vm_id not in done.handled
            and driver.definition.spec.datastore in done.waiting
        ]

    def _has_disks(self, driver: VmDriver) -> bool:
        try:
            for disk in driver.definition.spec.disks:
                self._host.storage.volume(disk.volume)
        except MicaError:
            return False
        return True

    def _open(self, datastore: str, done: _Done, there: set[str]) -> bool:
        """True if something on a datastore must still be started."""
        return datastore not in there or any(
            driver.definition.spec.datastore == datastore for driver in self._wanted(done)
        )

    async def _start_group(self, drivers: list[VmDriver], done: _Done) -> _Done:
        """Start VMs of the same order, and wait as they want it."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def start(driver: VmDriver) -> None:
            async with slots:
                started = await self._start(driver)
            if started:
                await self._wait_after(driver)

        if not self._host.ending.is_set():
            async with asyncio.TaskGroup() as group:
                for driver in drivers:
                    group.create_task(start(driver))
            handled = (*done.handled, *(driver.vm_id for driver in drivers))
            done = _Done(boot=done.boot, waiting=done.waiting, handled=handled)
            self._write(done)
        return done

    async def _start(self, driver: VmDriver) -> bool:
        """Start one VM; a failure is reported by its operation. False if it isn't a VM of ours."""
        await driver.ready()
        if driver.active or self._host.ending.is_set():
            return False
        ended = asyncio.Event()

        async def work(handle: OperationHandle) -> None:
            try:
                self._review.check_references(driver.vm_id, driver.definition.spec)
                await driver.ask(VmRequest.START, on_progress=handle.progress)
            finally:
                ended.set()

        try:
            driver.check(VmRequest.START)
            self._operations.begin(
                "vm.start", Subject(kind="vm", id=driver.vm_id), work, actor=ACTOR
            )
        except MicaError as error:
            _log.warning("VM %s is not started with the host: %s", driver.vm_id, error)
            return False
        await ended.wait()
        return driver.active

    async def _wait_after(self, driver: VmDriver) -> None:
        wanted = driver.definition.spec.autostart
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wanted.delay_s
        while (left_s := until_s - loop.time()) > 0 and not self._host.ending.is_set():
            if wanted.wait_for is WaitFor.AGENT and driver.agent.connected:
                return
            await asyncio.sleep(min(left_s, _LOOK_S))

    def _write(self, done: _Done) -> None:
        """It need not survive the host, so nothing is flushed."""
        write_lightly(self._path, msgspec.json.encode(done))


def _read(path: Path) -> _Done | None:
    try:
        return decode_json(read_limited(path, RECORD_MAX_BYTES), _Done)
    except (OSError, UndecodableError):
        return None


def _rank(driver: VmDriver) -> int:
    return driver.definition.spec.autostart.order
