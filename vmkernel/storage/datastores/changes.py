"""Requests to change datastores: create, adopt, rename, mount, grow, repair, delete.

An interrupted change leaves the configuration as before or as requested: the disks are changed
first if the change can be recognised on them later; the configuration decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from vmkernel import clock, dry_run
from vmkernel.model import (
    Datastore,
    DatastoreSpec,
    DatastoreState,
    ErrorCode,
    MicaError,
    Operation,
    Subject,
)
from vmkernel.operations import OperationContext, OperationRegistry
from vmkernel.state import HostConfig, StateStore, StoredDatastore
from vmkernel.storage.datastores.attachment import Attachment
from vmkernel.storage.datastores.capacity import check_thresholds
from vmkernel.storage.datastores.entry import Entry, not_available
from vmkernel.storage.datastores.events import DatastoreEvents
from vmkernel.storage.datastores.lease import TakeoverMode
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.datastores.views import DatastoreViews
from vmkernel.storage.drivers.base import Attached, CreateOptions, DatastoreDriver, Report
from vmkernel.storage.errors import StorageError
from vmkernel.storage.usage import VmUsage

__all__ = ["DatastoreChanges"]

_log = logging.getLogger(__name__)


class DatastoreChanges:
    """Each change is an operation that holds the datastore's lock."""

    def __init__(
        self,
        datastores: Datastores,
        attachment: Attachment,
        views: DatastoreViews,
        events: DatastoreEvents,
        usage: VmUsage,
        store: StateStore,
        operations: OperationRegistry,
    ) -> None:
        self._datastores = datastores
        self._attachment = attachment
        self._views = views
        self._events = events
        self._usage = usage
        self._store = store
        self._operations = operations
        self._on_disks_changed: Callable[[], None] = lambda: None
        self._coming: set[str] = set()
        """Ids that are being created or renamed to."""
        self._create_lock = asyncio.Lock()

    def when_disks_change(self, callback: Callable[[], None]) -> None:
        """Call it when what a disk holds is about to change, and when it has changed."""
        self._on_disks_changed = callback

    # --- make, adopt, forget ------------------------------------------------------------------

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, options: CreateOptions, *, actor: str
    ) -> Operation:
        """Make or adopt a datastore."""
        self._refuse_taken(datastore_id)
        driver = self._datastores.driver(spec.kind)
        driver.check_fields(spec)
        check_thresholds(spec.warning_percent, spec.critical_percent)
        self._coming.add(datastore_id)
        try:
            await driver.check(spec, options)

            async def work(context: OperationContext) -> None:
                try:
                    await self._create(driver, datastore_id, spec, options, _reporter(context))
                finally:
                    self._coming.discard(datastore_id)

            return self._begin("datastore.create", datastore_id, work, actor)
        except BaseException:
            self._coming.discard(datastore_id)
            raise

    async def delete(self, datastore_id: str, *, actor: str) -> Operation:
        """Detach and forget a datastore; its data are kept."""
        entry = self._datastores.entry(datastore_id)
        self._refuse_in_use(entry)

        async def work(_: OperationContext) -> None:
            async with entry.lock:
                await self._delete(entry)

        return self._begin("datastore.delete", datastore_id, work, actor)

    # --- change -------------------------------------------------------------------------------

    async def update(
        self,
        datastore_id: str,
        *,
        warning_percent: int,
        critical_percent: int,
        revision: int | None,
        actor: str,
    ) -> Datastore:
        """Change the thresholds; durable on return."""
        check_thresholds(warning_percent, critical_percent)
        entry = self._datastores.entry(datastore_id)
        async with entry.lock:
            if revision is not None and revision != entry.stored.revision:
                raise MicaError(
                    ErrorCode.REVISION_MISMATCH,
                    f"Datastore {datastore_id} is at revision {entry.stored.revision};"
                    " read it and repeat the change.",
                )
            spec = msgspec.structs.replace(
                entry.stored.spec,
                warning_percent=warning_percent,
                critical_percent=critical_percent,
            )
            if dry_run.dry():
                found = await self._views.get(datastore_id)
                dry_run.ending(msgspec.structs.replace(found, spec=spec))
            await self._keep_spec(entry, spec)
        self._events.changed(datastore_id, actor)
        return await self._views.get(datastore_id)

    async def rename(self, datastore_id: str, new_id: str, *, actor: str) -> Operation:
        """Rename it on this host; references to the old name are updated."""
        entry = self._datastores.entry(datastore_id)
        self._refuse_taken(new_id, "/id")
        self._refuse_in_use(entry)

        async def work(_: OperationContext) -> None:
            try:
                async with entry.lock:
                    await self._rename(entry, new_id)
            finally:
                self._coming.discard(new_id)

        operation = self._begin("datastore.rename", datastore_id, work, actor)
        self._coming.add(new_id)
        return operation

    async def unmount(self, datastore_id: str, *, actor: str) -> Operation:
        """Detach it until `mount` is called; it stays configured."""
        entry = self._datastores.entry(datastore_id)
        self._refuse_in_use(entry)

        async def work(_: OperationContext) -> None:
            async with entry.lock:
                async with self._leaving(entry):
                    await self._datastores.keep(
                        entry, msgspec.structs.replace(entry.stored, unmounted=True)
                    )
                await self._attachment.attach(entry)

        return self._begin("datastore.unmount", datastore_id, work, actor)

    async def mount(self, datastore_id: str, *, take_over: bool = False, actor: str) -> Operation:
        """Mount it again and keep it mounted; the operation fails if that isn't possible now.

        A lease of another host is taken over if that host is silent, or at once with `take_over`.
        """
        entry = self._datastores.entry(datastore_id)
        mode = TakeoverMode.FORCE if take_over else TakeoverMode.SILENT

        async def work(context: OperationContext) -> None:
            async with entry.lock:
                if entry.stored.unmounted:
                    await self._datastores.keep(
                        entry, msgspec.structs.replace(entry.stored, unmounted=False)
                    )
                await self._attachment.attach(entry, mode, _reporter(context))
                if entry.state is not DatastoreState.AVAILABLE:
                    raise StorageError(
                        ErrorCode.IN_USE if entry.held else ErrorCode.UNAVAILABLE,
                        entry.reason or f"{entry.id} is {entry.state}.",
                    )

        return self._begin("datastore.mount", datastore_id, work, actor)

    async def grow(self, datastore_id: str, *, actor: str) -> Operation:
        """Use the space that the disks have gained."""
        entry = self._datastores.entry(datastore_id)
        self._attached(entry)

        async def work(context: OperationContext) -> None:
            async with entry.lock:
                await self._datastores.driver_of(entry).grow(
                    entry.stored, self._attached(entry), _reporter(context)
                )
                await self._attachment.refresh(entry)

        return self._begin("datastore.grow", datastore_id, work, actor)

    async def add_disk(
        self, datastore_id: str, disk: str, options: CreateOptions, *, actor: str
    ) -> Operation:
        """Add a disk."""
        entry = self._datastores.entry(datastore_id)
        self._attached(entry)

        async def work(_: OperationContext) -> None:
            async with entry.lock:
                spec = await self._datastores.driver_of(entry).add_disk(
                    entry.stored, self._attached(entry), disk, options
                )
                await self._keep_spec(entry, spec)
                await self._attachment.refresh(entry)

        return self._begin("datastore.add-disk", datastore_id, work, actor)

    async def replace_disk(
        self, datastore_id: str, old: str, new: str, options: CreateOptions, *, actor: str
    ) -> Operation:
        """Replace a disk; the operation ends when the rebuild has begun."""
        entry = self._datastores.entry(datastore_id)
        self._attached(entry)

        async def work(_: OperationContext) -> None:
            async with entry.lock:
                spec = await self._datastores.driver_of(entry).replace_disk(
                    entry.stored, self._attached(entry), old, new, options
                )
                await self._keep_spec(entry, spec)
                await self._attachment.refresh(entry)

        return self._begin("datastore.replace-disk", datastore_id, work, actor)

    # --- work ---------------------------------------------------------------------------------

    async def _create(
        self,
        driver: DatastoreDriver,
        datastore_id: str,
        spec: DatastoreSpec,
        options: CreateOptions,
        report: Report,
    ) -> None:
        async with self._create_lock:
            attached = await driver.create(datastore_id, spec, options, report)
            stored = StoredDatastore(
                id=datastore_id,
                created_at=clock.now(),
                spec=attached.spec or spec,
                uuid=attached.uuid,
                backing=attached.backing,
            )

            def change(config: HostConfig) -> HostConfig:
                return msgspec.structs.replace(config, datastores=(*config.datastores, stored))

            if (twin := self._twin(stored.uuid)) is not None:
                # Before its lease and its tree are touched: they are those of the other.
                await asyncio.shield(driver.detach(stored, force=True))
                raise twin
            mode = TakeoverMode.FORCE if options.take_over else TakeoverMode.SILENT
            await self._attachment.open(stored, attached, mode, report)
            try:
                await self._store.update(change)
            except BaseException:
                await asyncio.shield(self._attachment.let_go(stored, attached, force=True))
                raise
            entry = self._datastores.entries[datastore_id] = Entry(stored)
            async with entry.lock:
                try:
                    await self._attachment.arrived(entry, attached)
                except BaseException:
                    await asyncio.shield(self._unmake(entry))
                    raise

    async def _unmake(self, entry: Entry) -> None:
        """Forget what could not be attached: a failed creation leaves no datastore."""
        try:
            await self._store.update(lambda config: _without(config, entry.id))
        except MicaError as error:
            _log.warning("datastore %s stays, and is tried again: %s", entry.id, error)
            return
        del self._datastores.entries[entry.id]

    async def _delete(self, entry: Entry) -> None:
        self._refuse_in_use(entry)
        async with self._leaving(entry):
            await self._store.update(lambda config: _without(config, entry.id))
        del self._datastores.entries[entry.id]
        self._datastores.tell(entry.id, available=False)  # now that nobody knows it any more
        self._events.state(entry.id, "deleted", None)

    async def _rename(self, entry: Entry, new_id: str) -> None:
        self._refuse_in_use(entry)
        old_id = entry.id
        async with self._leaving(entry):
            stored = msgspec.structs.replace(
                entry.stored, id=new_id, revision=entry.stored.revision + 1
            )
            await self._datastores.keep(entry, stored)
        del self._datastores.entries[old_id]
        renamed = self._datastores.entries[new_id] = Entry(entry.stored)
        self._events.state(old_id, "renamed", f"It is datastore {new_id} now.")
        async with renamed.lock:
            await self._attachment.attach(renamed)

    async def _keep_spec(self, entry: Entry, spec: DatastoreSpec) -> None:
        revision = entry.stored.revision + 1
        await self._datastores.keep(
            entry, msgspec.structs.replace(entry.stored, spec=spec, revision=revision)
        )

    # --- small parts --------------------------------------------------------------------------

    def _attached(self, entry: Entry) -> Attached:
        if entry.attached is None or entry.leaving:
            raise not_available(entry)
        return entry.attached

    def _refuse_in_use(self, entry: Entry) -> None:
        """`in-use` or `conflict` if a datastore can't be detached now."""
        if entry.leaving:
            raise StorageError(ErrorCode.CONFLICT, f"Datastore {entry.id} is being changed.")
        if entry.users:
            raise StorageError(ErrorCode.IN_USE, f"Datastore {entry.id} has operations under way.")
        if active := self._usage.vms.vms_on_datastore(entry.id, active=True):
            raise StorageError(
                ErrorCode.IN_USE, f"VM {active[0]} uses datastore {entry.id}; shut it down first."
            )

    @contextlib.asynccontextmanager
    async def _leaving(self, entry: Entry) -> AsyncIterator[None]:
        """Detach a datastore, then run the block that makes it permanent; attached again on
        failure.
        """
        self._refuse_in_use(entry)
        entry.leaving = True
        try:
            if entry.state is DatastoreState.AVAILABLE:
                self._attachment.leave(entry)
                if entry.attached is not None:
                    await self._attachment.let_go(entry.stored, entry.attached)
                entry.state = DatastoreState.MISSING
            else:
                await self._attachment.sweep(entry.stored)
            yield
        except BaseException:
            entry.leaving = False
            if entry.attached is not None:
                entry.state = DatastoreState.MISSING
                entry.attached = entry.layout = None
                await asyncio.shield(self._attachment.attach(entry))
            raise
        entry.leaving = False
        entry.attached = entry.layout = None

    def _twin(self, uuid: str) -> StorageError | None:
        """The refusal of a datastore that this host has under another name."""
        for other in self._store.config.datastores:
            if other.uuid == uuid:
                return StorageError(
                    ErrorCode.ALREADY_EXISTS, f"This host has it already, as datastore {other.id}."
                )
        return None

    def _refuse_taken(self, datastore_id: str, pointer: str | None = None) -> None:
        if datastore_id not in self._datastores.entries and datastore_id not in self._coming:
            return
        text = f"There is a datastore {datastore_id} already."
        if pointer is not None:
            raise MicaError.field(pointer, text, ErrorCode.ALREADY_EXISTS)
        raise MicaError(ErrorCode.ALREADY_EXISTS, text)

    def _begin(
        self,
        kind: str,
        datastore_id: str,
        work: Callable[[OperationContext], Awaitable[None]],
        actor: str,
    ) -> Operation:
        async def work_on_disks(context: OperationContext) -> None:
            try:
                await work(context)
            finally:
                self._on_disks_changed()

        self._on_disks_changed()
        subject = Subject(kind="datastore", id=datastore_id)
        return self._operations.begin(kind, subject, work_on_disks, actor=actor)


def _reporter(context: OperationContext) -> Report:
    return lambda stage: context.advance(0, stage=stage)


def _without(config: HostConfig, datastore_id: str) -> HostConfig:
    left = tuple(item for item in config.datastores if item.id != datastore_id)
    return msgspec.structs.replace(config, datastores=left)
