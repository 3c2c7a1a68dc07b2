"""Storage as a whole: its parts, joined, started and stopped."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from vmkernel.events import EventBus
from vmkernel.host.blocking_calls import BlockingCalls
from vmkernel.host.qemu_img import QemuImg
from vmkernel.host.worker import Workers
from vmkernel.model import Finding, Subject
from vmkernel.operations import OperationRegistry
from vmkernel.state import StateStore
from vmkernel.storage.catalogue import Catalogue
from vmkernel.storage.datastores.attachment import Attachment
from vmkernel.storage.datastores.capacity import Capacity
from vmkernel.storage.datastores.changes import DatastoreChanges
from vmkernel.storage.datastores.events import DatastoreEvents
from vmkernel.storage.datastores.lease import Identity, Leases
from vmkernel.storage.datastores.lease_keeper import LeaseKeeper
from vmkernel.storage.datastores.monitor import Monitor
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.datastores.rescan import VolumeRescan
from vmkernel.storage.datastores.views import DatastoreViews
from vmkernel.storage.disks.service import Disks, NoDisks
from vmkernel.storage.drivers.base import DatastoreDriver
from vmkernel.storage.images.resumable_uploads import ResumableUploads
from vmkernel.storage.images.service import Images
from vmkernel.storage.usage import VmUsage
from vmkernel.storage.vm_storage import VmStorage
from vmkernel.storage.volumes.clone import VolumeClones
from vmkernel.storage.volumes.file_check import VolumeFileCheck
from vmkernel.storage.volumes.moves import VolumeMoves
from vmkernel.storage.volumes.provisional import ProvisionalVolumes
from vmkernel.storage.volumes.resize import VolumeResizing
from vmkernel.storage.volumes.service import Volumes

if TYPE_CHECKING:
    from vmkernel.storage.images.import_pipeline import ImageImporter
    from vmkernel.storage.volumes.restore_stream import VolumeData

__all__ = ["StorageService"]


class StorageService:
    """The parts are public: callers use the part that they need."""

    def __init__(
        self,
        store: StateStore,
        operations: OperationRegistry,
        bus: EventBus,
        drivers: Sequence[DatastoreDriver],
        qemu_img: QemuImg,
        workers: Workers,
        *,
        worker_uid: int | None = None,
        machine: str = "",
    ) -> None:
        bounded = BlockingCalls()
        events = DatastoreEvents(bus)
        self._catalogue = Catalogue(
            lambda event_type, kind, name: bus.publish(event_type, Subject(kind=kind, id=name))
        )
        self.usage = VmUsage()
        self._watchers: list[asyncio.Task[None]] = []
        self.disks: Disks | NoDisks = NoDisks()

        leases = LeaseKeeper(
            Leases(lambda: Identity(store.config.uuid, store.config.hostname, machine)), bounded
        )
        self.datastores = Datastores(store, drivers, bounded)
        self.capacity = Capacity(self.datastores, events, bounded)
        self.attachment = Attachment(
            self.datastores, self._catalogue, leases, self.capacity, events, bounded, self.usage
        )
        rescan = VolumeRescan(self.datastores, self._catalogue, bounded)
        self.monitor = Monitor(
            self.datastores, self.attachment, self.capacity, leases, rescan, self.usage
        )
        self.datastore_views = DatastoreViews(self.datastores, self._catalogue, self.capacity)
        self.datastore_changes = DatastoreChanges(
            self.datastores,
            self.attachment,
            self.datastore_views,
            events,
            self.usage,
            store,
            operations,
        )

        @functools.cache
        def importer() -> ImageImporter:
            from vmkernel.storage.images.import_pipeline import ImageImporter

            return ImageImporter(
                self.datastores,
                self.capacity,
                self._catalogue,
                qemu_img,
                workers,
                worker_uid=worker_uid,
            )

        self._provisional = ProvisionalVolumes(self._catalogue, self.datastores, self.usage, bus)
        self.volumes = Volumes(
            self.datastores,
            self.capacity,
            self._catalogue,
            operations,
            bus,
            self.usage,
            qemu_img,
            self._provisional,
        )
        self.images = Images(
            self.datastores,
            self.capacity,
            self._catalogue,
            operations,
            bus,
            self.usage,
            self.volumes,
            importer,
            qemu_img,
            workers,
        )
        self.uploads = ResumableUploads(
            self.datastores, self.capacity, self._catalogue, operations, importer
        )
        self.clones = VolumeClones(
            self.volumes, self.datastores, self._catalogue, self.usage, qemu_img
        )
        self.volume_resizing = VolumeResizing(
            self.volumes,
            self.datastores,
            self.capacity,
            self._catalogue,
            self.usage,
            qemu_img,
        )
        self.volume_moves = VolumeMoves(
            self.volumes,
            self.datastores,
            self.capacity,
            self._catalogue,
            self.usage,
            qemu_img,
        )
        self.volume_file_check = VolumeFileCheck(
            self.volumes, self.datastores, rescan, self._catalogue, self.usage, qemu_img
        )
        self.for_vms = VmStorage(
            self.datastores,
            self._catalogue,
            self.volumes,
            self.clones,
            rescan,
            qemu_img,
            self._provisional,
        )

        @functools.cache
        def volume_data() -> VolumeData:
            from vmkernel.storage.volumes.restore_stream import VolumeData

            return VolumeData(self.volumes, self.datastores, self._catalogue)

        self.volume_data: Callable[[], VolumeData] = volume_data
        """Writes into raw volumes; its code is loaded at first use."""

    # --- what is made after storage -----------------------------------------------------------

    def bind_disks(self, disks: Disks) -> None:
        """Show and wipe these disks; hosted mode has none."""
        self.disks = disks
        self.datastore_changes.when_disks_change(disks.forget)

    # --- start, end ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Attach the datastores and begin to watch them."""
        await self.monitor.start()
        for name, work in (
            ("datastores", self.monitor.watch()),
            ("uploads", self.uploads.sweep()),
            (
                "provisional-volumes",
                self._provisional.watch(partial(self.volumes.delete, actor="time limit")),
            ),
            ("disk-health", self.disks.watch()),
        ):
            self._watchers.append(asyncio.create_task(work, name=name))

    async def stop(self) -> None:
        """Stop; nothing is unmounted."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self.uploads.stop()
        await self.images.stop()
        await self.monitor.stop()

    def findings(self) -> Iterator[Finding]:
        """What is missing or broken."""
        yield from self.datastore_views.findings()
        yield from self._catalogue.findings()
        yield from self.disks.findings()
