"""What storage provides to the VM side: paths to open, copies to start from, notifications."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from pathlib import Path

from vmkernel.host.qemu_img import QemuImg
from vmkernel.model import ErrorCode
from vmkernel.storage.catalogue import Catalogue
from vmkernel.storage.datastores.registry import Datastores
from vmkernel.storage.datastores.rescan import VolumeRescan
from vmkernel.storage.errors import StorageError
from vmkernel.storage.ports import DiskPast, ImageFile, VolumeFile, VolumeLayer
from vmkernel.storage.volumes.clone import VolumeClones
from vmkernel.storage.volumes.provisional import ProvisionalVolumes
from vmkernel.storage.volumes.service import Volumes

__all__ = ["VmStorage"]


class VmStorage:
    """Implements `vmkernel.storage.ports.Storage`, which describes its methods."""

    def __init__(
        self,
        datastores: Datastores,
        catalogue: Catalogue,
        volumes: Volumes,
        clones: VolumeClones,
        rescan: VolumeRescan,
        qemu_img: QemuImg,
        provisional: ProvisionalVolumes,
    ) -> None:
        self._datastores = datastores
        self._catalogue = catalogue
        self._volumes = volumes
        self._clones = clones
        self._rescan = rescan
        self.qemu_img = qemu_img
        self._provisional = provisional

    # --- datastores ---------------------------------------------------------------------------

    def datastores(self) -> tuple[str, ...]:
        return self._datastores.available()

    def known_datastores(self) -> tuple[str, ...]:
        return tuple(sorted(self._datastores.entries))

    def vms_folder(self, datastore: str) -> Path:
        return self._datastores.layout(datastore).vms

    def on_datastore_change(self, callback: Callable[[str, bool], None]) -> None:
        self._datastores.on_change(callback)

    @contextlib.asynccontextmanager
    async def reserve(self, datastores: Collection[str]) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as given:
            for datastore in sorted(set(datastores)):
                held = self._datastores.layout(datastore).reserve()
                await asyncio.to_thread(held.__enter__)
                given.push_async_callback(asyncio.to_thread, held.__exit__, None, None, None)
            yield

    # --- files --------------------------------------------------------------------------------

    def volume(self, volume: str, *, while_busy: bool = False) -> VolumeFile:
        entry = (
            self._volumes.checks.sound(volume)[0] if while_busy else self._volumes.usable(volume)
        )
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

    def image(self, image: str) -> ImageFile:
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

    def datastore_of_volume(self, volume: str) -> str | None:
        """The available datastore that a volume is on, whatever its state."""
        entry = self._catalogue.volumes.get(volume)
        return None if entry is None else entry.datastore

    def datastore_of_image(self, image: str) -> str | None:
        """The same for an image."""
        entry = self._catalogue.images.get(image)
        return None if entry is None else entry.datastore

    async def keep_volumes(self, volumes: Iterable[str]) -> None:
        await self._provisional.keep_named(volumes)

    def children(self, volume: str) -> tuple[str, ...]:
        return self._catalogue.children(volume)

    def refuse_children(self, volume: str) -> None:
        self._catalogue.refuse_children(volume)

    def clone_of(self, volume: str) -> str | None:
        entry = self._catalogue.volumes.get(volume)
        return entry.record.clone if entry is not None and entry.record is not None else None

    def fault(self, volume: str) -> str | None:
        entry = self._catalogue.volumes.get(volume)
        return f"there is no volume {volume}" if entry is None else self._catalogue.fault(entry)

    async def refresh(self, volumes: Sequence[str]) -> None:
        await self._rescan.volumes(volumes)

    # --- changes ------------------------------------------------------------------------------

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
        return await self._clones.copy(
            source, new, datastore=datastore, on_progress=on_progress, clone=clone, past=past
        )

    async def link_volume(self, source: str, new: str, *, clone: str) -> None:
        await self._clones.link(source, new, clone=clone)

    async def delete_volume(self, volume: str, *, actor: str) -> None:
        await self._volumes.delete(volume, actor=actor)
