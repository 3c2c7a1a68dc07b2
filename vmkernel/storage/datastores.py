"""The datastores of this host: making, finding again, watching, letting go.

               create                attach succeeds
(nothing) -------------> available <----------------- missing
                         |   ^                          ^  |
     delete: detached,   |   | it came back             |  | `failed` where it is there
     forgotten           v   +--------------------------+  v  and can't be used
(nothing) <--------------+      its disk went away      failed
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from vmkernel import clock
from vmkernel.events import EventBus
from vmkernel.host.files import free_bytes
from vmkernel.model import (
    Datastore,
    DatastoreKind,
    DatastoreSpec,
    DatastoreState,
    DatastoreStatus,
    ErrorCode,
    Finding,
    MicaError,
    Operation,
    Severity,
    Subject,
)
from vmkernel.operations import OperationContext, OperationRegistry
from vmkernel.state import HostConfig, StateStore, StoredDatastore
from vmkernel.storage.catalogue import Catalogue, load
from vmkernel.storage.drivers.base import Attached, DatastoreDriver
from vmkernel.storage.errors import DatastoreMissing, StorageError
from vmkernel.storage.layout import Layout
from vmkernel.storage.moved import settle_moves
from vmkernel.storage.users import Users

__all__ = ["Datastores"]

_log = logging.getLogger(__name__)
_START_WAIT_S = 10.0
_WATCH_S = 5.0
SPACE_MARGIN_BYTES = 16 << 20
"""Always left free, for descriptions and the file system's own needs."""

Listener = Callable[[str, bool], None]


@dataclass
class _Entry:
    stored: StoredDatastore
    state: DatastoreState = DatastoreState.MISSING
    reason: str | None = "It has not been looked for yet."
    attached: Attached | None = None
    layout: Layout | None = None
    reserved_bytes: int = 0
    users: int = 0
    leaving: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Datastores:
    """Owns all datastores; changes of one are made by one task at a time."""

    def __init__(
        self,
        store: StateStore,
        operations: OperationRegistry,
        bus: EventBus,
        catalogue: Catalogue,
        drivers: tuple[DatastoreDriver, ...],
        users: Users,
    ) -> None:
        self._store = store
        self._operations = operations
        self._bus = bus
        self._catalogue = catalogue
        self._drivers = {driver.kind: driver for driver in drivers}
        self._users = users
        self._entries: dict[str, _Entry] = {}
        self._creating: set[str] = set()
        self._listeners: list[Listener] = []
        self._create_lock = asyncio.Lock()
        self._starting: set[asyncio.Task[None]] = set()

    # --- start, watch -------------------------------------------------------------------------

    async def start(self) -> None:
        """Attach what the configuration names; slow ones come later, by `watch`."""
        for stored in self._store.config.datastores:
            self._entries[stored.id] = _Entry(stored)
        self._starting = {
            asyncio.create_task(self._attach(entry)) for entry in self._entries.values()
        }
        if self._starting:
            await asyncio.wait(self._starting, timeout=_START_WAIT_S)

    async def stop(self) -> None:
        """Let go; what is mounted stays mounted, for the VMs that run on."""
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)

    async def watch(self) -> None:
        """Look every few seconds for what is missing, and for what went away; until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_S)
            for entry in list(self._entries.values()):
                try:
                    await self._look_after(entry)
                except MicaError as error:
                    _log.warning("datastore %s: %s", entry.stored.id, error)
                except Exception:
                    _log.exception("watching datastore %s failed", entry.stored.id)

    def on_change(self, listener: Listener) -> None:
        """Call `listener(datastore, available)` when one has come or is about to go."""
        self._listeners.append(listener)

    def findings(self) -> Iterator[Finding]:
        """Datastores that can't be used."""
        for entry in self._entries.values():
            if entry.state is not DatastoreState.AVAILABLE:
                yield Finding(
                    code=f"datastore-{entry.state}",
                    severity=Severity.ERROR,
                    message=f"Datastore {entry.stored.id} is {entry.state}: {entry.reason}",
                    subject=f"datastore/{entry.stored.id}",
                )

    # --- reading ------------------------------------------------------------------------------

    def available(self) -> tuple[str, ...]:
        """The ids of the available datastores, sorted."""
        return tuple(
            sorted(
                key
                for key, entry in self._entries.items()
                if entry.state is DatastoreState.AVAILABLE and not entry.leaving
            )
        )

    def layout(self, datastore_id: str) -> Layout:
        """The tree of an available datastore; `unavailable` or `not-found` otherwise."""
        entry = self._entry(datastore_id)
        if entry.layout is None or entry.leaving:
            raise StorageError(
                ErrorCode.UNAVAILABLE,
                f"Datastore {datastore_id} is {entry.state}: {entry.reason or 'it is going.'}",
            )
        return entry.layout

    def layout_for(self, datastore_id: str) -> Layout:
        """The same for a request whose `/spec/datastore` names it."""
        if datastore_id not in self._entries:
            raise MicaError.field("/spec/datastore", f"There is no datastore {datastore_id}.")
        return self.layout(datastore_id)

    async def list(self) -> tuple[Datastore, ...]:
        """All datastores by id."""
        entries = sorted(self._entries.values(), key=lambda entry: entry.stored.id)
        return tuple(await asyncio.to_thread(lambda: [_describe(entry) for entry in entries]))

    async def get(self, datastore_id: str) -> Datastore:
        """One datastore."""
        return await asyncio.to_thread(_describe, self._entry(datastore_id))

    def on_disks(self) -> dict[str, str]:
        """Which datastore lies on which device node."""
        return {
            entry.attached.device: entry.stored.id
            for entry in self._entries.values()
            if entry.attached is not None and entry.attached.device is not None
        }

    def uuid(self, datastore_id: str) -> str:
        """The UUID in a datastore's marker."""
        return self._entry(datastore_id).stored.uuid

    # --- use ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def using(self, datastore_id: str) -> AsyncIterator[Layout]:
        """Keep a datastore from being deleted meanwhile."""
        layout = self.layout(datastore_id)
        entry = self._entry(datastore_id)
        entry.users += 1
        try:
            yield layout
        finally:
            entry.users -= 1

    def reserve(self, datastore_id: str, size_bytes: int, *, pointer: str) -> Callable[[], None]:
        """Set space aside before it is written; call the result to give it back.

        `insufficient-space` names the field at `pointer`.
        """
        layout = self.layout(datastore_id)
        entry = self._entry(datastore_id)
        _, free = free_bytes(layout.root)
        left = free - entry.reserved_bytes - SPACE_MARGIN_BYTES
        if size_bytes > left:
            raise MicaError.field(
                pointer,
                f"Datastore {datastore_id} has {max(0, left)} bytes free; {size_bytes} are needed.",
                ErrorCode.INSUFFICIENT_SPACE,
            )
        entry.reserved_bytes += size_bytes
        given_back = False

        def release() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                entry.reserved_bytes -= size_bytes

        return release

    # --- change -------------------------------------------------------------------------------

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, wipe_serial: str | None, *, actor: str
    ) -> Operation:
        """Make or adopt a datastore."""
        self._refuse_taken(datastore_id)
        driver = self._drivers.get(spec.kind)
        if driver is None:
            raise MicaError.field(
                "/spec/kind",
                f"This host has no datastores of kind {spec.kind}.",
                ErrorCode.UNSUPPORTED,
            )
        self._creating.add(datastore_id)
        try:
            await driver.check(spec, wipe_serial)

            async def work(context: OperationContext) -> None:
                try:
                    await self._create(driver, datastore_id, spec, wipe_serial, context)
                finally:
                    self._creating.discard(datastore_id)

            return self._operations.begin(
                "datastore.create",
                Subject(kind="datastore", id=datastore_id),
                work,
                actor=actor,
            )
        except BaseException:
            self._creating.discard(datastore_id)
            raise

    async def delete(self, datastore_id: str, *, actor: str) -> Operation:
        """Detach and forget a datastore; its data stay."""
        entry = self._entry(datastore_id)
        self._refuse_in_use(entry)

        async def work(_: OperationContext) -> None:
            async with entry.lock:
                await self._delete(entry)

        return self._operations.begin(
            "datastore.delete", Subject(kind="datastore", id=datastore_id), work, actor=actor
        )

    async def _create(
        self,
        driver: DatastoreDriver,
        datastore_id: str,
        spec: DatastoreSpec,
        wipe_serial: str | None,
        context: OperationContext,
    ) -> None:
        async with self._create_lock:
            attached = await driver.create(
                datastore_id, spec, wipe_serial, lambda stage: context.advance(0, stage=stage)
            )
            stored = StoredDatastore(
                id=datastore_id,
                created_at=clock.now(),
                spec=spec,
                uuid=attached.uuid,
                partition_uuid=attached.partition_uuid,
            )

            def change(config: HostConfig) -> HostConfig:
                for other in config.datastores:
                    if other.uuid == stored.uuid:
                        raise StorageError(
                            ErrorCode.ALREADY_EXISTS, f"It is datastore {other.id} already."
                        )
                return msgspec.structs.replace(config, datastores=(*config.datastores, stored))

            try:
                await self._store.update(change)
            except BaseException:
                known = {other.uuid for other in self._store.config.datastores}
                if spec.kind is DatastoreKind.LOCAL or attached.uuid not in known:
                    await driver.detach(datastore_id, force=True)
                raise
            entry = self._entries[datastore_id] = _Entry(stored)
            await self._arrived(entry, attached)

    async def _delete(self, entry: _Entry) -> None:
        stored = entry.stored
        driver = self._drivers[stored.spec.kind]
        self._refuse_in_use(entry)
        entry.leaving = True
        was_available = entry.state is DatastoreState.AVAILABLE
        try:
            if was_available:
                self._tell(stored.id, available=False)
                self._catalogue.drop(stored.id)
                await driver.detach(stored.id)
            await self._store.update(lambda config: _without(config, stored.id))
        except BaseException:
            entry.leaving = False
            if was_available:
                entry.state = DatastoreState.MISSING
                entry.attached = entry.layout = None
                await self._attach_locked(entry)
            raise
        del self._entries[stored.id]
        self._publish(stored.id, "deleted", None)

    # --- coming and going ---------------------------------------------------------------------

    async def _attach(self, entry: _Entry) -> None:
        async with entry.lock:
            await self._attach_locked(entry)

    async def _attach_locked(self, entry: _Entry) -> None:
        if (
            self._entries.get(entry.stored.id) is not entry
            or entry.state is DatastoreState.AVAILABLE
        ):
            return
        driver = self._drivers.get(entry.stored.spec.kind)
        try:
            if driver is None:
                raise StorageError(
                    ErrorCode.UNSUPPORTED, f"This host has no {entry.stored.spec.kind} datastores."
                )
            attached = await driver.attach(entry.stored)
        except DatastoreMissing as error:
            self._gone(entry, DatastoreState.MISSING, str(error))
        except MicaError as error:
            self._gone(entry, DatastoreState.FAILED, str(error))
        else:
            await self._arrived(entry, attached)

    async def _arrived(self, entry: _Entry, attached: Attached) -> None:
        layout = Layout(attached.root)
        contents = await asyncio.to_thread(load, layout, entry.stored.id)
        entry.attached = attached
        entry.layout = layout
        entry.state = DatastoreState.AVAILABLE
        entry.reason = None
        void = self._catalogue.add(entry.stored.id, contents)
        await settle_moves(
            self._catalogue,
            void,
            present={e.stored.uuid for e in self._entries.values() if e.layout is not None},
            known={e.stored.uuid for e in self._entries.values()},
        )
        _log.info(
            "datastore %s: available, %d volumes, %d images",
            entry.stored.id,
            len(contents.volumes),
            len(contents.images),
        )
        self._tell(entry.stored.id, available=True)
        self._publish(entry.stored.id, "available", None)

    def _gone(self, entry: _Entry, state: DatastoreState, reason: str) -> None:
        if (entry.state, entry.reason) != (state, reason):
            _log.warning("datastore %s is %s: %s", entry.stored.id, state, reason)
            self._publish(entry.stored.id, state.value, reason)
        entry.state = state
        entry.reason = reason

    async def _look_after(self, entry: _Entry) -> None:
        if entry.leaving:
            return
        if entry.state is not DatastoreState.AVAILABLE:
            await self._attach(entry)
            return
        driver = self._drivers[entry.stored.spec.kind]
        if await driver.present(entry.stored):
            return
        async with entry.lock:
            if entry.state is not DatastoreState.AVAILABLE or entry.leaving:
                return
            self._tell(entry.stored.id, available=False)
            self._catalogue.drop(entry.stored.id)
            entry.attached = entry.layout = None
            self._gone(entry, DatastoreState.MISSING, "What it lies on went away while in use.")
            with contextlib.suppress(MicaError):
                await driver.detach(entry.stored.id, force=True)

    # --- small parts --------------------------------------------------------------------------

    def _entry(self, datastore_id: str) -> _Entry:
        if (entry := self._entries.get(datastore_id)) is None:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no datastore {datastore_id}.")
        return entry

    def _refuse_taken(self, datastore_id: str) -> None:
        if datastore_id in self._entries or datastore_id in self._creating:
            raise MicaError(
                ErrorCode.ALREADY_EXISTS, f"There is a datastore {datastore_id} already."
            )

    def _refuse_in_use(self, entry: _Entry) -> None:
        name = entry.stored.id
        if entry.leaving:
            raise StorageError(ErrorCode.CONFLICT, f"Datastore {name} is being deleted.")
        if entry.users:
            raise StorageError(ErrorCode.IN_USE, f"Datastore {name} has operations under way.")
        if active := self._users.vms_on_datastore(name, active=True):
            raise StorageError(
                ErrorCode.IN_USE, f"VM {active[0]} uses datastore {name}; shut it down first."
            )

    def _tell(self, datastore_id: str, *, available: bool) -> None:
        for listener in self._listeners:
            listener(datastore_id, available)

    def _publish(self, datastore_id: str, state: str, reason: str | None) -> None:
        self._bus.publish(
            "datastore.state",
            Subject(kind="datastore", id=datastore_id),
            message=reason or "",
            data={"state": state},
        )


def _describe(entry: _Entry) -> Datastore:
    """The datastore as the API tells it (blocking: statvfs)."""
    status = DatastoreStatus(state=entry.state, uuid=entry.stored.uuid, reason=entry.reason)
    if entry.attached is not None:
        capacity, free = 0, 0
        with contextlib.suppress(OSError):
            capacity, free = free_bytes(entry.attached.root)
        status = msgspec.structs.replace(
            status,
            capacity_bytes=capacity,
            free_bytes=max(0, free - entry.reserved_bytes),
            device=entry.attached.device,
            filesystem=entry.attached.filesystem,
        )
    return Datastore(
        id=entry.stored.id,
        revision=entry.stored.revision,
        created_at=entry.stored.created_at,
        spec=entry.stored.spec,
        status=status,
    )


def _without(config: HostConfig, datastore_id: str) -> HostConfig:
    left = tuple(item for item in config.datastores if item.id != datastore_id)
    return msgspec.structs.replace(config, datastores=left)
