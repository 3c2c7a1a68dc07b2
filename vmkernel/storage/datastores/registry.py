"""Which datastores this host has, and where each is now.

               create, mount         attach succeeds
(nothing) -------------> available <----------------- missing
                         |   ^   |                      ^  |
     delete: detached,   |   |   | unmount              |  | `failed` if it is there
     forgotten           v   |   v                      v  v and can't be used
(nothing) <--------------+   |   unmounted              failed
                             +--- its disk or server went away: missing

attachment.py makes these steps, monitor.py finds out by itself that one is due, changes.py takes
them by request.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

import msgspec

from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.host.errors import naming_datastore
from vmkernel.model import DatastoreKind, DatastoreState, ErrorCode, MicaError
from vmkernel.state import HostConfig, StateStore, StoredDatastore
from vmkernel.storage.datastores.entry import Entry, not_available
from vmkernel.storage.drivers.base import DatastoreDriver
from vmkernel.storage.layout import Layout

__all__ = ["Datastores"]

T = TypeVar("T")
_PROBE_S = 10.0
"""Longer than a disk needs to spin up; a dead server is given up by then."""
GLANCE_S = 2.0
"""The time limit of a list with values of many datastores: one that hangs delays it no longer."""

Listener = Callable[[str, bool], None]


class Datastores:
    """The datastores by id, their drivers, and short looks at their files."""

    def __init__(
        self, store: StateStore, drivers: Sequence[DatastoreDriver], blocking: BlockingCalls
    ) -> None:
        self._store = store
        self._drivers = {driver.kind: driver for driver in drivers}
        self._blocking = blocking
        self._listeners: list[Listener] = []
        self.entries: dict[str, Entry] = {}
        """By id; changed only in this package."""

    def load(self) -> None:
        """Read the configured datastores; none of them is attached yet."""
        for stored in self._store.config.datastores:
            self.entries[stored.id] = Entry(stored)

    async def keep(self, entry: Entry, stored: StoredDatastore) -> None:
        """Make a datastore's changed description durable."""
        old = entry.stored.id

        def change(config: HostConfig) -> HostConfig:
            items = tuple(stored if item.id == old else item for item in config.datastores)
            return msgspec.structs.replace(config, datastores=items)

        await self._store.update(change)
        entry.stored = stored

    # --- which, where -------------------------------------------------------------------------

    def entry(self, datastore_id: str) -> Entry:
        if (entry := self.entries.get(datastore_id)) is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no datastore {datastore_id}.")
        return entry

    def available(self) -> tuple[str, ...]:
        return tuple(
            sorted(
                key
                for key, entry in self.entries.items()
                if entry.state is DatastoreState.AVAILABLE and not entry.leaving
            )
        )

    def layout(self, datastore_id: str) -> Layout:
        """The tree of an available datastore; else `unavailable` or `not-found`."""
        entry = self.entry(datastore_id)
        if entry.layout is None or entry.leaving:
            raise not_available(entry)
        return entry.layout

    def layout_for(self, datastore_id: str) -> Layout:
        """The same for a request whose `/spec/datastore` names it."""
        if datastore_id not in self.entries:
            raise MicaError.field("/spec/datastore", f"There is no datastore {datastore_id}.")
        return self.layout(datastore_id)

    def uuid(self, datastore_id: str) -> str:
        """The UUID in a datastore's marker."""
        return self.entry(datastore_id).stored.uuid

    # --- drivers ------------------------------------------------------------------------------

    def driver(self, kind: DatastoreKind) -> DatastoreDriver:
        """The driver of a kind; `unsupported` if this host has none."""
        if (driver := self._drivers.get(kind)) is None:
            raise MicaError.field(
                "/spec/kind",
                f"This host has no datastores of kind {kind}.",
                ErrorCode.UNSUPPORTED,
            )
        return driver

    def driver_of(self, entry: Entry) -> DatastoreDriver:
        """The driver of one datastore."""
        return self.driver(entry.stored.spec.kind)

    def drivers(self) -> tuple[DatastoreDriver, ...]:
        """The drivers of all kinds."""
        return tuple(self._drivers.values())

    def on_disks(self) -> dict[str, str]:
        """Which datastore is on which device node, or, if it is missing now, on which disk id
        (blocking).
        """
        found = {}
        for entry in list(self.entries.values()):
            stored = entry.stored
            driver = self._drivers.get(stored.spec.kind)
            if driver is None:
                continue  # it was made in the other mode: none of its disks is ours to know
            if entry.attached is None:
                names = driver.disks_of(stored.spec)
            else:
                names = driver.device_nodes(stored)
            found.update(dict.fromkeys(names, entry.id))
        return found

    # --- use ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def using(self, datastore_id: str, *, writes: bool = True) -> AsyncIterator[Layout]:
        """Keep a datastore from being deleted meanwhile; with `writes`, failures for lack of space
        name it.
        """
        layout = self.layout(datastore_id)
        entry = self.entry(datastore_id)
        entry.users += 1
        try:
            with naming_datastore(datastore_id) if writes else contextlib.nullcontext():
                yield layout
        finally:
            entry.users -= 1

    async def probe(
        self, datastore_id: str, call: Callable[[], T], *, patience_s: float | None = None
    ) -> T:
        """The result of a short access to an available datastore's files, off the event loop;
        `timed-out` if it doesn't answer, OSError.
        """
        self.layout(datastore_id)
        return await self._blocking.run_beside(
            f"look-{datastore_id}",
            call,
            timeout_s=patience_s or _PROBE_S,
            what=f"Datastore {datastore_id}",
        )

    # --- listeners ----------------------------------------------------------------------------

    def on_change(self, listener: Listener) -> None:
        """Call `listener(datastore, available)` when a datastore has become available or is about
        to be detached.
        """
        self._listeners.append(listener)

    def tell(self, datastore_id: str, *, available: bool) -> None:
        for listener in self._listeners:
            listener(datastore_id, available)
