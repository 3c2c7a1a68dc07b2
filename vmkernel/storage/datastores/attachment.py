"""How a datastore becomes available and stops being so: attached, leased, loaded; let go.

attach   the driver brings its root
open     the lease is taken, what a crash left is repaired
arrived  its volumes, images and VMs are known, its figures measured
leave    its VMs and uploads are notified, its content is forgotten
let_go   the lease is released, the driver takes the root away

Whatever fails on the way in ends in `let_go`. While VMs may run there, which an earlier vmkernel
started, the lease stays ours and their files stay mounted; the next look at it tries again.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.model import DatastoreState, ErrorCode, MicaError
from vmkernel.state import StoredDatastore
from vmkernel.storage.catalogue import Catalogue, load
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.entry import Entry
from vmkernel.storage.datastores.events import DatastoreEvents
from vmkernel.storage.datastores.interrupted_moves import settle_moves
from vmkernel.storage.datastores.lease import LeaseHeld, TakeoverMode
from vmkernel.storage.datastores.lease_keeper import LeaseKeeper
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.drivers.base import Attached, Observation, Report
from vmkernel.storage.errors import DatastoreMissing, StorageError
from vmkernel.storage.layout import Layout
from vmkernel.storage.records import RecordError
from vmkernel.storage.usage import VmUsage

__all__ = ["Attachment"]

_log = logging.getLogger(__name__)
_LOAD_S = 120.0
"""Reading the headers and descriptions of all volumes and images, over a slow network."""


class Attachment:
    """The steps; each is taken by one task at a time, which holds the datastore's lock."""

    def __init__(
        self,
        datastores: Datastores,
        catalogue: Catalogue,
        leases: LeaseKeeper,
        capacity: Capacity,
        events: DatastoreEvents,
        blocking: BlockingCalls,
        usage: VmUsage,
    ) -> None:
        self._datastores = datastores
        self._catalogue = catalogue
        self._leases = leases
        self._capacity = capacity
        self._events = events
        self._blocking = blocking
        self._usage = usage
        self.ending = False
        """When True, nothing is attached any more."""

    # --- coming -------------------------------------------------------------------------------

    async def attach(
        self, entry: Entry, mode: TakeoverMode = TakeoverMode.OWN, report: Report | None = None
    ) -> None:
        """Attach a datastore that is not available; a failure becomes its state."""
        known = self._datastores.entries.get(entry.id) is entry
        if not known or entry.state is DatastoreState.AVAILABLE or self.ending:
            return
        if entry.stored.unmounted:
            self.gone(entry, DatastoreState.UNMOUNTED, "It was unmounted by request.")
            return
        try:
            attached = await self._datastores.driver_of(entry).attach(entry.stored)
            await self.open(entry.stored, attached, mode, report)
            await self.arrived(entry, attached)
        except LeaseHeld as error:
            self.gone(entry, DatastoreState.FAILED, str(error), held=True)
        except DatastoreMissing as error:
            self.gone(entry, DatastoreState.MISSING, str(error))
        except MicaError as error:
            self.gone(entry, DatastoreState.FAILED, str(error))
        except OSError as error:
            self.gone(entry, DatastoreState.FAILED, f"It can't be read: {error.strerror}.")
        except Exception:  # a defect of ours: the reason is in the log
            self.gone(entry, DatastoreState.FAILED, "It can't be used: an internal error.")
            raise

    async def open(
        self,
        stored: StoredDatastore,
        attached: Attached,
        mode: TakeoverMode,
        report: Report | None = None,
    ) -> None:
        """Take the lease of an attached tree and repair it; it is detached again if that fails."""
        layout = Layout(attached.root)

        def repair() -> None:
            marker = layout.read_marker()
            if marker is None or marker.uuid != attached.uuid:
                raise DatastoreMissing(f"Another datastore has replaced {stored.id}.")
            layout.open()

        try:
            lost = await self._leases.take(stored.id, attached, mode, report)
            if lost is not None:
                self._events.taken_over(stored.id, lost)
            await self._blocking.run(
                f"load-{stored.id}", repair, timeout_s=_LOAD_S, what=f"Datastore {stored.id}"
            )
        except RecordError as error:
            await asyncio.shield(self.let_go(stored, attached, force=True))
            raise StorageError(ErrorCode.UNAVAILABLE, f"{stored.id}: {error}.") from error
        except BaseException:
            await asyncio.shield(self.let_go(stored, attached, force=True))
            raise

    async def arrived(self, entry: Entry, attached: Attached) -> None:
        """Make a leased datastore available: its content, its capacity, its VMs. If that fails, it
        is detached again and its content forgotten; the caller sets its state.
        """
        try:
            await self._take_up(entry, attached)
        except RecordError as error:
            await asyncio.shield(self._given_up(entry, attached))
            raise StorageError(ErrorCode.UNAVAILABLE, f"{entry.id}: {error}.") from error
        except BaseException:
            await asyncio.shield(self._given_up(entry, attached))
            raise

    async def _given_up(self, entry: Entry, attached: Attached) -> None:
        try:
            self.leave(entry)
        finally:
            entry.attached = entry.layout = None
            if entry.state is DatastoreState.AVAILABLE:
                entry.state = DatastoreState.MISSING
            await self.let_go(entry.stored, attached, force=True)

    async def _take_up(self, entry: Entry, attached: Attached) -> None:
        layout = Layout(attached.root)
        contents = await self._blocking.run(
            f"load-{entry.id}",
            lambda: load(layout, entry.id),
            timeout_s=_LOAD_S,
            what=f"Datastore {entry.id}",
        )
        entry.attached = attached
        if attached.spec is not None and attached.spec != entry.stored.spec:
            await self._datastores.keep(
                entry, msgspec.structs.replace(entry.stored, spec=attached.spec)
            )
        await self._capacity.refresh(entry)
        await self.observe(entry)
        entry.layout = layout  # what is known of it and what is there change in one step
        entry.state = DatastoreState.AVAILABLE
        entry.reason = None
        entry.held = False
        void = self._catalogue.add(entry.id, contents)
        others = self._datastores.entries.values()
        await settle_moves(
            self._catalogue,
            void,
            present={e.stored.uuid for e in others if e.layout is not None},
            known={e.stored.uuid for e in others},
        )
        _log.info(
            "datastore %s: available, %d volumes, %d images",
            entry.id,
            len(contents.volumes),
            len(contents.images),
        )
        self._datastores.tell(entry.id, available=True)
        self._events.state(entry.id, "available", None)

    async def observe(self, entry: Entry) -> None:
        """Read the present state of its disks or its server."""
        observed = await self._datastores.driver_of(entry).observe(entry.stored)
        before, entry.observed = entry.observed, observed
        for news in observed.news(entry.id, before):
            self._events.news(entry.id, news)

    async def refresh(self, entry: Entry) -> None:
        """Read the new state of a datastore right after a change."""
        if entry.attached is not None:
            await self._capacity.glance(entry)
            await self.observe(entry)

    # --- going --------------------------------------------------------------------------------

    def leave(self, entry: Entry) -> None:
        """Notify VMs and uploads that a datastore is about to be detached."""
        self._datastores.tell(entry.id, available=False)
        self._catalogue.drop(entry.id)

    async def let_go(
        self, stored: StoredDatastore, attached: Attached, *, force: bool = False
    ) -> None:
        """Release the lease and detach. By `force`, what fails is only logged, and what is ours and
        a VM may still use is not let go."""
        if force and self._leases.has(attached) and self._usage.may_run_on(stored.id):
            _log.warning("datastore %s stays ours and mounted: VMs may run there", stored.id)
            return
        await self._leases.release(stored.id, attached)
        await self._detach(stored, force=force)

    async def vanished(self, stored: StoredDatastore, attached: Attached | None) -> None:
        """Detach a datastore that disappeared while in use, and release its lease if possible and
        if no VM may continue there once it is back."""
        if attached is not None and not self._usage.may_run_on(stored.id):
            await self._leases.release(stored.id, attached)
        await self._detach(stored, force=True)

    async def sweep(self, stored: StoredDatastore) -> None:
        """Remove what failed attempts have left of a datastore that is not available and on
        which no VM runs: a lease, a mount, a started array."""
        await self._leases.release_left(stored.id, stored.uuid)
        await self._detach(stored, force=True)

    async def _detach(self, stored: StoredDatastore, *, force: bool) -> None:
        try:
            await self._datastores.driver(stored.spec.kind).detach(stored, force=force)
        except MicaError as error:
            if not force:
                raise
            _log.warning("datastore %s: %s", stored.id, error)

    def gone(
        self, entry: Entry, state: DatastoreState, reason: str | None, *, held: bool = False
    ) -> None:
        """Record that a datastore is not available, and why; `held` if another host has it."""
        if (entry.state, entry.reason) != (state, reason):
            _log.warning("datastore %s is %s: %s", entry.id, state, reason)
            self._events.state(entry.id, state.value, reason)
        entry.state = state
        entry.reason = reason
        entry.held = held
        entry.attached = entry.layout = None
        entry.observed = Observation()
