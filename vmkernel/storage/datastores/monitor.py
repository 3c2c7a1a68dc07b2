"""Watching the datastores: missing ones are searched for, available ones are monitored."""

from __future__ import annotations

import asyncio
import logging

from vmkernel.model import DatastoreState, MicaError
from vmkernel.storage.datastores.attachment import Attachment
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.entry import Entry
from vmkernel.storage.datastores.lease import LeaseLost
from vmkernel.storage.datastores.lease_keeper import LeaseKeeper
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.datastores.rescan import VolumeRescan
from vmkernel.storage.errors import StorageError
from vmkernel.storage.usage import VmUsage

__all__ = ["Monitor"]

_log = logging.getLogger(__name__)
_START_WAIT_S = 10.0
"""The host's start waits no longer than this for its datastores; slow ones are attached later."""
_WATCH_S = 5.0
"""It limits how soon a lease is renewed: see lease.py."""


class Monitor:
    """One task per datastore, so that one that hangs delays no other."""

    def __init__(
        self,
        datastores: Datastores,
        attachment: Attachment,
        capacity: Capacity,
        leases: LeaseKeeper,
        rescan: VolumeRescan,
        usage: VmUsage,
    ) -> None:
        self._datastores = datastores
        self._attachment = attachment
        self._capacity = capacity
        self._leases = leases
        self._rescan = rescan
        self._usage = usage
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Attach the configured datastores; slow ones are attached later, by `watch`."""
        self._datastores.load()
        for entry in self._datastores.entries.values():
            self._refresh_in_background(entry)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_START_WAIT_S)

    async def watch(self) -> None:
        """Check every few seconds; until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_S)
            for entry in list(self._datastores.entries.values()):
                self._refresh_in_background(entry)

    async def release_idle(self) -> None:
        """Release the leases of datastores on which no VM runs, because we are ending and others
        may use them. The VM side must still be running.
        """
        self._attachment.ending = True
        await self._leases.release_all(
            [
                (entry.id, entry.attached)
                for entry in self._datastores.entries.values()
                if entry.attached is not None
                and not self._usage.vms.vms_on_datastore(entry.id, active=True)
            ]
        )

    async def stop(self) -> None:
        """Stop; what is mounted stays mounted, for the VMs that continue to run."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refresh_in_background(self, entry: Entry) -> None:
        task = self._tasks.get(entry.id)
        if task is None or task.done():
            self._tasks[entry.id] = asyncio.create_task(
                self._refresh_safely(entry), name=f"datastore-{entry.id}"
            )

    async def _refresh_safely(self, entry: Entry) -> None:
        try:
            await self.refresh(entry)
        except MicaError as error:
            _log.warning("datastore %s: %s", entry.id, error)
        except Exception:
            _log.exception("watching datastore %s failed", entry.id)

    async def refresh(self, entry: Entry) -> None:
        """One check of one datastore: attach it, monitor it, or detach it."""
        if entry.leaving or self._attachment.ending:
            return
        if entry.state is not DatastoreState.AVAILABLE:
            async with entry.lock:
                await self._attachment.attach(entry)
            return
        driver = self._datastores.driver_of(entry)
        state, reason = DatastoreState.MISSING, "Its storage disappeared while in use."
        if await driver.present(entry.stored):
            try:
                # Disks are one host's alone, and may rest.
                if entry.attached is not None and driver.shared:
                    await self._leases.renew(entry.id, entry.attached)
            except LeaseLost as error:
                state, reason = DatastoreState.FAILED, str(error)
            except StorageError as error:
                reason = str(error)
            else:
                await self._capacity.refresh(entry)
                await self._rescan.broken(entry)
                await self._attachment.observe(entry)
                return
        async with entry.lock:
            if (
                entry.state is not DatastoreState.AVAILABLE
                or entry.leaving
                or self._attachment.ending
            ):
                return
            self._attachment.leave(entry)
            attached = entry.attached
            self._attachment.gone(entry, state, reason, held=state is DatastoreState.FAILED)
            await self._attachment.vanished(entry.stored, attached)
