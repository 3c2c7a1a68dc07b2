"""The datastores of this host: finding them again, watching them, telling of them.

               create, mount         attach succeeds
(nothing) -------------> available <----------------- missing
                         |   ^   |                      ^  |
     delete: detached,   |   |   | unmount              |  | `failed` where it is there
     forgotten           v   |   v                      v  v and can't be used
(nothing) <--------------+   |   unmounted              failed
                             +--- its disk or server went away: missing

What changes a datastore by request stands in datastore_changes.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from vmkernel.events import EventBus
from vmkernel.host.bounded import Bounded
from vmkernel.host.errors import DatastoreFullError, from_os_error, naming_datastore
from vmkernel.host.files import free_bytes
from vmkernel.model import (
    Datastore,
    DatastoreKind,
    DatastoreState,
    ErrorCode,
    Finding,
    MicaError,
    Subject,
)
from vmkernel.state import HostConfig, StateStore, StoredDatastore
from vmkernel.storage.catalogue import Catalogue, load, look_at_volume
from vmkernel.storage.datastore_entry import Entry, describe, not_available
from vmkernel.storage.datastore_findings import findings_of
from vmkernel.storage.drivers.base import Attached, DatastoreDriver, Observation, Report
from vmkernel.storage.errors import DatastoreMissing, StorageError
from vmkernel.storage.layout import Layout
from vmkernel.storage.lease import Claim, LeaseHeld, LeaseLost, Leases
from vmkernel.storage.lease_keeper import LeaseKeeper
from vmkernel.storage.moved import settle_moves
from vmkernel.storage.records import RecordError
from vmkernel.storage.space import Space, next_level
from vmkernel.storage.users import Users

__all__ = ["Datastores", "SPACE_MARGIN_BYTES"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
_START_WAIT_S = 10.0
_WATCH_S = 5.0
_SPACE_S = 20.0
_LOAD_S = 120.0
_LOOK_S = 10.0
_GLANCE_S = 2.0
SPACE_MARGIN_BYTES = 16 << 20
"""Always left free, for descriptions and the file system's own needs."""

Listener = Callable[[str, bool], None]


class Datastores:
    """Owns all datastores; changes of one are made by one task at a time."""

    def __init__(
        self,
        store: StateStore,
        bus: EventBus,
        catalogue: Catalogue,
        drivers: Sequence[DatastoreDriver],
        users: Users,
        leases: Leases,
    ) -> None:
        self._store = store
        self._bus = bus
        self._catalogue = catalogue
        self._drivers = {driver.kind: driver for driver in drivers}
        self._users = users
        self._bounded = Bounded()
        self._leases = LeaseKeeper(leases, self._bounded)
        self._ending = False
        self._listeners: list[Listener] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.entries: dict[str, Entry] = {}
        """By id; changed by this module and datastore_changes.py alone."""

    # --- start, watch -------------------------------------------------------------------------

    async def start(self) -> None:
        """Attach what the configuration names; slow ones come later, by `watch`."""
        for stored in self._store.config.datastores:
            self.entries[stored.id] = Entry(stored)
        for entry in self.entries.values():
            self._look_in_background(entry)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_START_WAIT_S)

    async def release_idle(self) -> None:
        """Let go of the leases of datastores on which no VM runs: we end, and others may have
        them. The VM side must be there still to be asked."""
        self._ending = True
        await self._leases.release_all(
            [
                (entry.id, entry.attached)
                for entry in self.entries.values()
                if entry.attached is not None
                and not self._users.vms_on_datastore(entry.id, active=True)
            ]
        )

    async def stop(self) -> None:
        """Let go; what is mounted stays mounted, for the VMs that run on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def watch(self) -> None:
        """Look every few seconds for what is missing, and for what went away; until cancelled.

        Each datastore is looked after by a task of its own, so that one that hangs holds up
        itself alone.
        """
        while True:
            await asyncio.sleep(_WATCH_S)
            for entry in list(self.entries.values()):
                self._look_in_background(entry)

    def on_change(self, listener: Listener) -> None:
        """Call `listener(datastore, available)` when one has come or is about to go."""
        self._listeners.append(listener)

    def findings(self) -> Iterator[Finding]:
        """Datastores that can't be used, that are full, or that have lost redundancy."""
        for entry in self.entries.values():
            yield from findings_of(entry)

    # --- reading ------------------------------------------------------------------------------

    def available(self) -> tuple[str, ...]:
        """The ids of the available datastores, sorted."""
        return tuple(
            sorted(
                key
                for key, entry in self.entries.items()
                if entry.state is DatastoreState.AVAILABLE and not entry.leaving
            )
        )

    def layout(self, datastore_id: str) -> Layout:
        """The tree of an available datastore; `unavailable` or `not-found` otherwise."""
        entry = self.entry(datastore_id)
        if entry.layout is None or entry.leaving:
            raise not_available(entry)
        return entry.layout

    def layout_for(self, datastore_id: str) -> Layout:
        """The same for a request whose `/spec/datastore` names it."""
        if datastore_id not in self.entries:
            raise MicaError.field("/spec/datastore", f"There is no datastore {datastore_id}.")
        return self.layout(datastore_id)

    async def list(self) -> tuple[Datastore, ...]:
        """All datastores by id."""
        entries = sorted(self.entries.values(), key=lambda entry: entry.id)
        for entry in entries:
            await self._refresh_local(entry)
        return tuple(self._describe(entry) for entry in entries)

    async def get(self, datastore_id: str) -> Datastore:
        """One datastore."""
        entry = self.entry(datastore_id)
        await self._refresh_local(entry)
        return self._describe(entry)

    def on_disks(self) -> dict[str, str]:
        """Which datastore lies on which device node, or, where it is not there now, on the disk
        with which id (blocking)."""
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

    def uuid(self, datastore_id: str) -> str:
        """The UUID in a datastore's marker."""
        return self.entry(datastore_id).stored.uuid

    # --- use ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def using(self, datastore_id: str, *, writes: bool = True) -> AsyncIterator[Layout]:
        """Keep a datastore from being deleted meanwhile; what `writes` to it and fails for want of
        space names it."""
        layout = self.layout(datastore_id)
        entry = self.entry(datastore_id)
        entry.users += 1
        try:
            with naming_datastore(datastore_id) if writes else contextlib.nullcontext():
                yield layout
        finally:
            entry.users -= 1

    async def look(
        self, datastore_id: str, call: Callable[[], T], *, patience_s: float | None = None
    ) -> T:
        """The outcome of a short look at an available datastore's files, off the event loop;
        `timed-out` where it doesn't answer, OSError."""
        self.layout(datastore_id)
        return await self._bounded.run_beside(
            f"look-{datastore_id}",
            call,
            timeout_s=patience_s or _LOOK_S,
            what=f"Datastore {datastore_id}",
        )

    async def measure(self, datastore_id: str) -> None:
        """Bring what is known of the free space up to date; `timed-out` where that takes long.

        Space is promised by what was measured last (`reserve`): whoever promises measures first.
        """
        root = self.layout(datastore_id).root
        entry = self.entry(datastore_id)
        if self.driver(entry.stored.spec.kind).remote:
            return  # `watch` does it: each look would be a question to the server
        try:
            figures = await self.look(datastore_id, lambda: free_bytes(root))
        except OSError as error:
            raise from_os_error(error, f"Datastore {datastore_id} can't be measured") from error
        entry.space = Space(*figures)
        self._judge_space(entry)

    async def unreserved_bytes(self, datastore_id: str) -> int:
        """What may still be written there without a reservation."""
        await self.measure(datastore_id)
        entry = self.entry(datastore_id)
        return max(0, entry.space.free_bytes - entry.reserved_bytes - SPACE_MARGIN_BYTES)

    def reserve(self, datastore_id: str, size_bytes: int, *, pointer: str) -> Callable[[], None]:
        """Set space aside before it is written; call the result to give it back. See `measure`.

        `insufficient-space` names the field at `pointer`.
        """
        self.layout(datastore_id)
        entry = self.entry(datastore_id)
        left = entry.space.free_bytes - entry.reserved_bytes - SPACE_MARGIN_BYTES
        if size_bytes > left:
            raise DatastoreFullError(
                f"{size_bytes} bytes are needed, and {max(0, left)} bytes are free on datastore"
                f" {datastore_id}",
                fields=(pointer,),
            )
        entry.reserved_bytes += size_bytes
        given_back = False

        def release() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                entry.reserved_bytes -= size_bytes

        return release

    async def look_at_volumes(self, volumes: Sequence[str]) -> None:
        """Look again at the files of volumes, and of what they stand on: a header each."""
        for entry in list(self.entries.values()):
            if wanted := self._catalogue.with_bases(volumes, entry.id):
                await self._look_at(entry, wanted, wanted[0])

    async def _look_at(self, entry: Entry, wanted: Sequence[str], what: str) -> None:
        layout = entry.layout
        if layout is None or entry.leaving:
            return
        found = await self._bounded.run(
            f"volumes-{entry.id}-{what}",
            lambda: [look_at_volume(layout, entry.id, volume) for volume in wanted],
            timeout_s=_LOOK_S,
            what=f"Datastore {entry.id}",
        )
        if entry.layout is layout:
            for volume in found:
                self._catalogue.seen(volume)

    # --- for datastore_changes.py -------------------------------------------------------------

    def entry(self, datastore_id: str) -> Entry:
        """One datastore; `not-found` otherwise."""
        if (entry := self.entries.get(datastore_id)) is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no datastore {datastore_id}.")
        return entry

    def driver(self, kind: DatastoreKind) -> DatastoreDriver:
        """The driver of a kind; `unsupported` where this host has none."""
        if (driver := self._drivers.get(kind)) is None:
            raise MicaError.field(
                "/spec/kind",
                f"This host has no datastores of kind {kind}.",
                ErrorCode.UNSUPPORTED,
            )
        return driver

    def drivers(self) -> tuple[DatastoreDriver, ...]:
        """The drivers of all kinds."""
        return tuple(self._drivers.values())

    def refuse_in_use(self, entry: Entry) -> None:
        """`in-use` or `conflict` where a datastore can't be let go now."""
        if entry.leaving:
            raise StorageError(ErrorCode.CONFLICT, f"Datastore {entry.id} is being changed.")
        if entry.users:
            raise StorageError(ErrorCode.IN_USE, f"Datastore {entry.id} has operations under way.")
        if active := self._users.vms_on_datastore(entry.id, active=True):
            raise StorageError(
                ErrorCode.IN_USE, f"VM {active[0]} uses datastore {entry.id}; shut it down first."
            )

    async def arrived(self, entry: Entry, attached: Attached) -> None:
        """Take up a datastore that was attached: its contents, its figures, its VMs."""
        layout = Layout(attached.root)
        contents = await self._bounded.run(
            f"load-{entry.id}",
            lambda: load(layout, entry.id),
            timeout_s=_LOAD_S,
            what=f"Datastore {entry.id}",
        )
        entry.attached = attached
        if attached.spec is not None and attached.spec != entry.stored.spec:
            await self.keep(entry, msgspec.structs.replace(entry.stored, spec=attached.spec))
        await self._refresh(entry)
        await self._observe(entry)
        entry.layout = layout  # what is known of it and what is there change in one step
        entry.state = DatastoreState.AVAILABLE
        entry.reason = None
        entry.held = False
        void = self._catalogue.add(entry.id, contents)
        await settle_moves(
            self._catalogue,
            void,
            present={e.stored.uuid for e in self.entries.values() if e.layout is not None},
            known={e.stored.uuid for e in self.entries.values()},
        )
        _log.info(
            "datastore %s: available, %d volumes, %d images",
            entry.id,
            len(contents.volumes),
            len(contents.images),
        )
        self.tell(entry.id, available=True)
        self.publish(entry.id, "available", None)

    def leave(self, entry: Entry) -> None:
        """Tell everybody that what lies in a datastore is about to go."""
        self.tell(entry.id, available=False)
        self._catalogue.drop(entry.id)

    def gone(
        self, entry: Entry, state: DatastoreState, reason: str | None, *, held: bool = False
    ) -> None:
        """A datastore is not available, for a reason; `held` where that is another Mica."""
        if (entry.state, entry.reason) != (state, reason):
            _log.warning("datastore %s is %s: %s", entry.id, state, reason)
            self.publish(entry.id, state.value, reason)
        entry.state = state
        entry.reason = reason
        entry.held = held
        entry.attached = entry.layout = None
        entry.observed = Observation()

    async def open(
        self,
        stored: StoredDatastore,
        attached: Attached,
        claim: Claim,
        report: Report | None = None,
    ) -> None:
        """Make a tree that was attached ours, and repair it; detached again where that fails."""
        layout = Layout(attached.root)

        def repair() -> None:
            marker = layout.read_marker()
            if marker is None or marker.uuid != attached.uuid:
                raise DatastoreMissing(f"Another datastore lies in the place of {stored.id} now.")
            layout.open()

        try:
            lost = await self._leases.take(stored.id, attached, claim, report)
            if lost is not None:
                text = f"Datastore {stored.id} was taken over from {lost}."
                self._event(stored.id, "datastore.taken-over", text, {"from": lost})
            await self._bounded.run(
                f"load-{stored.id}", repair, timeout_s=_LOAD_S, what=f"Datastore {stored.id}"
            )
        except RecordError as error:
            await asyncio.shield(self.let_go(stored, attached, force=True))
            raise StorageError(ErrorCode.UNAVAILABLE, f"{stored.id}: {error}.") from error
        except BaseException:
            await asyncio.shield(self.let_go(stored, attached, force=True))
            raise

    async def let_go(
        self, stored: StoredDatastore, attached: Attached, *, force: bool = False
    ) -> None:
        """Release the lease and detach; what fails by `force` is only logged."""
        await self._leases.release(stored.id, attached)
        try:
            await self.driver(stored.spec.kind).detach(stored, force=force)
        except MicaError as error:
            if not force:
                raise
            _log.warning("datastore %s: %s", stored.id, error)

    async def attach_locked(
        self, entry: Entry, claim: Claim = Claim.OWN, report: Report | None = None
    ) -> None:
        """Attach a datastore that is not available; the caller holds its lock."""
        known = self.entries.get(entry.id) is entry
        if not known or entry.state is DatastoreState.AVAILABLE or self._ending:
            return
        if entry.stored.unmounted:
            self.gone(entry, DatastoreState.UNMOUNTED, "It was unmounted by request.")
            return
        try:
            attached = await self.driver(entry.stored.spec.kind).attach(entry.stored)
            await self.open(entry.stored, attached, claim, report)
            await self.arrived(entry, attached)
        except LeaseHeld as error:
            self.gone(entry, DatastoreState.FAILED, str(error), held=True)
        except DatastoreMissing as error:
            self.gone(entry, DatastoreState.MISSING, str(error))
        except MicaError as error:
            self.gone(entry, DatastoreState.FAILED, str(error))
        except OSError as error:
            self.gone(entry, DatastoreState.FAILED, f"It can't be read: {error.strerror}.")

    async def keep(self, entry: Entry, stored: StoredDatastore) -> None:
        """Make a datastore's changed description durable."""
        old = entry.stored.id

        def change(config: HostConfig) -> HostConfig:
            items = tuple(stored if item.id == old else item for item in config.datastores)
            return msgspec.structs.replace(config, datastores=items)

        await self._store.update(change)
        entry.stored = stored

    def publish(self, datastore_id: str, state: str, reason: str | None) -> None:
        """Tell the world of a change of state."""
        self._event(datastore_id, "datastore.state", reason or "", {"state": state})

    def tell_changed(self, datastore_id: str, actor: str) -> None:
        """Tell the world that a datastore's settings have changed."""
        subject = Subject(kind="datastore", id=datastore_id)
        self._bus.publish("datastore.changed", subject, actor=actor)

    async def look_again(self, entry: Entry) -> None:
        """See at once what a change has made of a datastore."""
        if entry.attached is not None:
            await self._refresh_local(entry)
            await self._observe(entry)

    # --- watching -----------------------------------------------------------------------------

    def _look_in_background(self, entry: Entry) -> None:
        task = self._tasks.get(entry.id)
        if task is None or task.done():
            self._tasks[entry.id] = asyncio.create_task(
                self._look_safely(entry), name=f"datastore-{entry.id}"
            )

    async def _look_safely(self, entry: Entry) -> None:
        try:
            await self._look_after(entry)
        except MicaError as error:
            _log.warning("datastore %s: %s", entry.id, error)
        except Exception:
            _log.exception("watching datastore %s failed", entry.id)

    async def _look_after(self, entry: Entry) -> None:
        if entry.leaving or self._ending:
            return
        if entry.state is not DatastoreState.AVAILABLE:
            async with entry.lock:
                await self.attach_locked(entry)
            return
        driver = self.driver(entry.stored.spec.kind)
        state, reason = DatastoreState.MISSING, "What it lies on went away while in use."
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
                await self._refresh(entry)
                if broken := self._catalogue.broken(entry.id):
                    await self._look_at(entry, broken, "")
                await self._observe(entry)
                return
        async with entry.lock:
            if entry.state is not DatastoreState.AVAILABLE or entry.leaving or self._ending:
                return
            self.leave(entry)
            self.gone(entry, state, reason, held=state is DatastoreState.FAILED)
            with contextlib.suppress(MicaError):
                await driver.detach(entry.stored, force=True)

    async def _refresh_local(self, entry: Entry) -> None:
        """Measure what can be measured at once; the others are measured by `watch`."""
        attached = entry.attached
        if attached is None or self.driver(entry.stored.spec.kind).remote:
            return
        with contextlib.suppress(OSError, MicaError):
            figures = await self.look(
                entry.id, lambda: free_bytes(attached.root), patience_s=_GLANCE_S
            )
            entry.space = Space(*figures)
            self._judge_space(entry)

    async def _refresh(self, entry: Entry) -> None:
        """Measure the space; the last figures stay where that takes too long."""
        attached = entry.attached
        if attached is None or self._bounded.hangs(f"space-{entry.id}"):
            return
        with contextlib.suppress(OSError, MicaError):
            figures = await self._bounded.run(
                f"space-{entry.id}",
                lambda: free_bytes(attached.root),
                timeout_s=_SPACE_S,
                what=f"Datastore {entry.id}",
            )
            entry.space = Space(*figures)
            self._judge_space(entry)

    def _judge_space(self, entry: Entry) -> None:
        spec = entry.stored.spec
        used = entry.space.used_percent
        level = next_level(entry.level, used, spec.warning_percent, spec.critical_percent)
        if level is entry.level:
            return
        entry.level = level
        text = f"{used:.0f} % of datastore {entry.id} are used."
        _log.warning("%s (%s)", text, level)
        data = {"level": level.value, "used_percent": round(used, 1)}
        self._event(entry.id, "datastore.space", text, data)

    async def _observe(self, entry: Entry) -> None:
        observed = await self.driver(entry.stored.spec.kind).observe(entry.stored)
        before, entry.observed = entry.observed, observed
        for news in observed.news(entry.id, before):
            _log.warning("%s", news.text)
            self._event(entry.id, news.kind, news.text, news.data)

    # --- small parts --------------------------------------------------------------------------

    def _describe(self, entry: Entry) -> Datastore:
        volumes = self._catalogue.volumes.values()
        return describe(
            entry, sum(item.size_bytes for item in volumes if item.datastore == entry.id)
        )

    def tell(self, datastore_id: str, *, available: bool) -> None:
        for listener in self._listeners:
            listener(datastore_id, available)

    def _event(
        self, datastore_id: str, kind: str, text: str, data: Mapping[str, str | int | float]
    ) -> None:
        subject = Subject(kind="datastore", id=datastore_id)
        self._bus.publish(kind, subject, message=text, data={**data})
