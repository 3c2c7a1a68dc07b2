"""Storage as a whole: what requests and the VM side are given."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmkernel.events import EventBus
from vmkernel.host.qemu_img import QemuImg
from vmkernel.host.worker import Workers
from vmkernel.model import (
    Datastore,
    DatastoreSpec,
    Disk,
    ErrorCode,
    Finding,
    Image,
    ImageSource,
    MicaError,
    Operation,
    Subject,
    Volume,
    VolumeFormat,
    VolumeSpec,
)
from vmkernel.operations import OperationRegistry
from vmkernel.state import StateStore
from vmkernel.storage.catalogue import Catalogue
from vmkernel.storage.datastore_changes import DatastoreChanges
from vmkernel.storage.datastores import Datastores
from vmkernel.storage.disks import Disks
from vmkernel.storage.drivers.base import Consent, DatastoreDriver
from vmkernel.storage.errors import StorageError
from vmkernel.storage.images.service import Images
from vmkernel.storage.lease import Identity, Leases
from vmkernel.storage.ports import DiskPast, ImageFile, LiveDisks, VmUsers, VolumeFile, VolumeLayer
from vmkernel.storage.resumable import ResumableUploads
from vmkernel.storage.still import StillVolumes
from vmkernel.storage.users import Users
from vmkernel.storage.volume_changes import VolumeChanges
from vmkernel.storage.volume_clones import VolumeClones
from vmkernel.storage.volumes import Volumes

if TYPE_CHECKING:
    from vmkernel.storage.intake import Intake
    from vmkernel.storage.volume_data import VolumeData

__all__ = ["StorageService"]


class StorageService:
    """Joins the parts; implements `vmkernel.vm.ports.Storage`."""

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
        self._bus = bus
        self.qemu_img = qemu_img
        self._users = Users()
        self._catalogue = Catalogue()
        self._watchers: list[asyncio.Task[None]] = []
        self._disks: Disks | None = None
        leases = Leases(lambda: Identity(store.config.uuid, store.config.hostname, machine))
        self.stores = Datastores(store, bus, self._catalogue, drivers, self._users, leases)
        self.datastore_edits = DatastoreChanges(self.stores, store, operations)

        @functools.cache
        def intake() -> Intake:
            from vmkernel.storage.intake import Intake

            return Intake(self.stores, self._catalogue, qemu_img, workers, worker_uid=worker_uid)

        self.images = Images(
            self.stores,
            self._catalogue,
            operations,
            self._users,
            StillVolumes(self.stores, self._catalogue, self._users),
            intake,
            qemu_img,
            workers,
        )
        self.uploads = ResumableUploads(self.stores, self._catalogue, operations, intake)
        self.volumes = Volumes(
            self.stores,
            self._catalogue,
            operations,
            self._users,
            qemu_img,
        )
        self.clones = VolumeClones(self.volumes, self.stores, self._catalogue, qemu_img)
        self._volume_data: VolumeData | None = None
        self.changes = VolumeChanges(
            self.volumes,
            self.stores,
            self._catalogue,
            self._users,
            qemu_img,
        )

    def bind(self, vms: VmUsers) -> None:
        """Ask this VM side who uses what, from now on."""
        self._users.bind(vms)

    def bind_live(self, live: Callable[[], LiveDisks]) -> None:
        """Change volumes that VMs have open by this, from now on."""
        self._users.bind_live(live)

    def bind_disks(self, disks: Disks) -> None:
        """Tell of these disks; hosted mode has none."""
        self._disks = disks

    async def start(self) -> None:
        """Attach the datastores and begin to watch them."""
        await self.stores.start()
        self._watchers.append(asyncio.create_task(self.stores.watch(), name="datastores"))
        self._watchers.append(asyncio.create_task(self.uploads.sweep(), name="uploads"))
        if self._disks is not None:
            health = self._disks.health.watch()
            self._watchers.append(asyncio.create_task(health, name="disk-health"))

    async def release_idle(self) -> None:
        """Let other hosts have the datastores on which no VM runs; see Datastores."""
        await self.stores.release_idle()

    async def stop(self) -> None:
        """Let go; nothing is unmounted."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self.uploads.stop()
        await self.images.stop()
        await self.stores.stop()

    def findings(self) -> Iterator[Finding]:
        """What is missing or broken."""
        yield from self.stores.findings()
        yield from self._catalogue.findings()
        if self._disks is not None:
            yield from self._disks.health.findings()

    # --- for requests -------------------------------------------------------------------------

    async def list_disks(self) -> tuple[Disk, ...]:
        """The host's disks by id."""
        return () if self._disks is None else await self._disks.list()

    async def list_datastores(self) -> tuple[Datastore, ...]:
        """All datastores by id."""
        return await self.stores.list()

    async def get_datastore(self, datastore_id: str) -> Datastore:
        """One datastore."""
        return await self.stores.get(datastore_id)

    async def wipe_disk(self, disk_id: str, wipe_serial: str, *, actor: str) -> Operation:
        """Destroy all that a disk holds."""
        if self._disks is None:
            raise MicaError(ErrorCode.UNSUPPORTED, "In hosted mode the disks are not Mica's.")
        self._disks.forget()
        return await self._disks.wipe(disk_id, wipe_serial, actor=actor)

    async def create_datastore(
        self, datastore_id: str, spec: DatastoreSpec, consent: Consent, *, actor: str
    ) -> Operation:
        """Make or adopt a datastore."""
        self._forget_disks()
        return await self.datastore_edits.create(datastore_id, spec, consent, actor=actor)

    async def delete_datastore(self, datastore_id: str, *, actor: str) -> Operation:
        """Detach and forget a datastore."""
        self._forget_disks()
        return await self.datastore_edits.delete(datastore_id, actor=actor)

    async def add_datastore_disk(
        self, datastore_id: str, disk: str, consent: Consent, *, actor: str
    ) -> Operation:
        """Give a datastore one disk more."""
        self._forget_disks()
        return await self.datastore_edits.add_disk(datastore_id, disk, consent, actor=actor)

    async def replace_datastore_disk(
        self, datastore_id: str, old: str, new: str, consent: Consent, *, actor: str
    ) -> Operation:
        """Put a disk in the place of another."""
        self._forget_disks()
        return await self.datastore_edits.replace_disk(datastore_id, old, new, consent, actor=actor)

    def _forget_disks(self) -> None:
        if self._disks is not None:
            self._disks.forget()

    async def upload_image(
        self, image_id: str, source: ImageSource, *, actor: str
    ) -> tuple[Operation, socket.socket]:
        """Begin to take an image."""
        return await self.images.upload(image_id, source, actor=actor)

    async def delete_image(self, image_id: str, *, actor: str) -> None:
        """Delete an image that nobody uses."""
        await self.images.delete(image_id)
        self._bus.publish("image.deleted", Subject(kind="image", id=image_id), actor=actor)

    def list_images(self, datastore: str | None) -> tuple[Image, ...]:
        """The images by id."""
        return self.images.list(datastore)

    async def list_volumes(
        self, datastore: str | None, after: str | None, limit: int
    ) -> tuple[tuple[Volume, ...], bool]:
        """A page of the volumes by id."""
        return await self.volumes.list(datastore, after, limit)

    async def write_volume(
        self, volume_id: str, offset: int, length: int, *, actor: str
    ) -> socket.socket:
        """The stream that takes a part of a raw volume's data."""
        if self._volume_data is None:
            from vmkernel.storage.volume_data import VolumeData

            self._volume_data = VolumeData(self.volumes, self.stores, self._catalogue)
        return await self._volume_data.write(volume_id, offset, length, actor=actor)

    async def create_volume(self, volume_id: str, spec: VolumeSpec, *, actor: str) -> Operation:
        """Make a volume."""
        return await self.volumes.create(volume_id, spec, actor=actor)

    # --- for the VM side (vm.ports.Storage) ---------------------------------------------------

    def datastores(self) -> tuple[str, ...]:
        """The ids of the available datastores, sorted."""
        return self.stores.available()

    def known_datastores(self) -> tuple[str, ...]:
        """The ids of all configured datastores, sorted."""
        return tuple(sorted(self.stores.entries))

    def vms_folder(self, datastore: str) -> Path:
        """The folder that holds one folder a VM."""
        return self.stores.layout(datastore).vms

    def volume(self, volume: str, *, while_busy: bool = False) -> VolumeFile:
        """A volume that can be opened."""
        entry = self.volumes.sound(volume)[0] if while_busy else self.volumes.usable(volume)
        chain = self._catalogue.chain(entry)
        return VolumeFile(
            id=entry.id,
            datastore=entry.datastore,
            path=entry.place.data,
            format=entry.format,
            size_bytes=entry.size_bytes,
            backing=tuple(VolumeLayer(path=e.place.data, format=e.format) for e in chain),
            children=self._catalogue.children(volume),
        )

    def children(self, volume: str) -> tuple[str, ...]:
        """The volumes that are linked to one."""
        return self._catalogue.children(volume)

    def refuse_children(self, volume: str) -> None:
        """Raise `in-use` where linked volumes need a volume's data as they are."""
        self._catalogue.refuse_children(volume)

    def clone_of(self, volume: str) -> str | None:
        """The token of the clone that a volume was made for."""
        entry = self._catalogue.volumes.get(volume)
        return entry.record.clone if entry is not None and entry.record is not None else None

    def fault(self, volume: str) -> str | None:
        """Why a volume can't be used, as far as it was looked at."""
        entry = self._catalogue.volumes.get(volume)
        return f"there is no volume {volume}" if entry is None else self._catalogue.fault(entry)

    @contextlib.asynccontextmanager
    async def reserve(self, datastores: Collection[str]) -> AsyncIterator[None]:
        """Let what frees room on full datastores have the room that is set aside there."""
        async with contextlib.AsyncExitStack() as given:
            for datastore in sorted(set(datastores)):
                held = self.stores.layout(datastore).reserve()
                await asyncio.to_thread(held.__enter__)
                given.push_async_callback(asyncio.to_thread, held.__exit__, None, None, None)
            yield

    async def look_again(self, volumes: Sequence[str]) -> None:
        """Look at the files of volumes, and of what they stand on."""
        await self.stores.look_at_volumes(volumes)

    def image(self, image: str) -> ImageFile:
        """An image that can be read."""
        entry = self._catalogue.image(image)
        if entry.record is None or entry.reason is not None:
            raise StorageError(ErrorCode.CONFLICT, f"Image {image} can't be used: {entry.reason}.")
        return ImageFile(
            id=entry.id,
            datastore=entry.datastore,
            path=entry.place.data,
            format=entry.format,
            size_bytes=entry.record.size_bytes,
        )

    async def copy_volume(
        self,
        source: str,
        new: str,
        *,
        datastore: str | None,
        on_progress: Callable[[int, int], None],
        clone: str,
        past: DiskPast | None = None,
    ) -> bool:
        """Make a volume of what another holds, or held, without its snapshots."""
        shared = await self.clones.copy(
            source, new, datastore=datastore, on_progress=on_progress, clone=clone, past=past
        )
        entry = self.volumes.usable(new)
        if shared and entry.format is VolumeFormat.QCOW2 and self._users.snapshots_of(source):
            # A copy that shares its blocks has taken them along.
            for tag in sorted(await self.qemu_img.snapshots(entry.place.data)):
                await self.qemu_img.snapshot("-d", tag, entry.place.data)
        return shared

    async def link_volume(self, source: str, new: str, *, clone: str) -> None:
        """Make a volume that is the difference to another."""
        await self.clones.link(source, new, clone=clone)

    async def delete_volume(self, volume: str, *, actor: str, revision: int | None = None) -> None:
        """Delete a volume that no VM names."""
        await self.volumes.delete(volume, revision=revision)
        self._bus.publish("volume.deleted", Subject(kind="volume", id=volume), actor=actor)

    def on_datastore_change(self, callback: Callable[[str, bool], None]) -> None:
        """Tell `callback(datastore, available)` when one has come or is about to go."""
        self.stores.on_change(callback)
