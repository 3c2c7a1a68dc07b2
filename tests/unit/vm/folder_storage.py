"""A Storage that keeps everything in one folder: the real interface, without datastores."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from pathlib import Path

import msgspec

from vmkernel.host import Runner
from vmkernel.host.qemu_img import QemuImg
from vmkernel.host.worker import Workers
from vmkernel.model import ErrorCode, ImageFormat, MicaError, VolumeFormat
from vmkernel.storage.formats.open_disk import verify_open_disk
from vmkernel.storage.ports import DiskPast, ImageFile, VolumeFile, VolumeLayer

__all__ = ["FakeQemuImg", "FolderStorage"]


class FakeQemuImg(QemuImg):
    """Snapshots inside qcow2 files, kept apart from them."""

    def __init__(self) -> None:
        super().__init__(Workers(Runner()), verify_open_disk)
        self.kept: dict[Path, dict[str, bytes]] = {}
        self.marks: dict[Path, set[str]] = {}
        """Dirty bitmaps."""
        self.fails_at: str | None = None
        """An action that fails the next time."""
        self.fails = 1
        """How often it fails."""

    async def snapshot(
        self,
        action: str,
        tag: str,
        path: Path,
    ) -> None:
        if action == self.fails_at:
            self.fails -= 1
            if not self.fails:
                self.fails_at, self.fails = None, 1
            raise MicaError(ErrorCode.UNAVAILABLE, f"qemu-img snapshot {action} failed.")
        kept = self.kept.setdefault(path, {})
        if action == "-c":
            kept[tag] = path.read_bytes()
        elif action == "-a":
            if self.marks.get(path):
                raise MicaError(ErrorCode.UNAVAILABLE, "Device has active dirty bitmaps")
            path.write_bytes(kept[tag])
        else:
            del kept[tag]

    async def snapshots(self, path: Path) -> frozenset[str]:
        return frozenset(self.kept.get(path, {}))

    async def bitmaps(self, path: Path) -> dict[str, bool]:
        return dict.fromkeys(self.marks.get(path, ()), True)

    async def remove_bitmap(self, name: str, path: Path) -> None:
        self.marks[path].remove(name)


class FolderStorage:
    """One or more datastores below a folder."""

    reserves: tuple[str, ...] = ()
    """The datastores that gave up their reserve, in order."""

    @contextlib.asynccontextmanager
    async def reserve(self, datastores: Collection[str]) -> AsyncIterator[None]:
        self.reserves += tuple(sorted(datastores))
        yield

    def __init__(self, root: Path, datastores: tuple[str, ...] = ("main",)) -> None:
        self.root = root
        self.available = set(datastores)
        self.known = set(datastores)
        self.volumes: dict[str, VolumeFile] = {}
        self.images: dict[str, ImageFile] = {}
        self.deleted: list[str] = []
        self.kept: tuple[str, ...] = ()
        """The volumes that were told to stay, in order."""
        self.copy_fails: str | None = None
        self.copy_waits: asyncio.Event | None = None
        self.clones: dict[str, str] = {}
        self.faults: dict[str, str] = {}
        self.looked_at: list[str] = []
        self.qemu_img = FakeQemuImg()
        self.callbacks: list[Callable[[str, bool], None]] = []
        for name in datastores:
            (root / name / "vms").mkdir(parents=True)

    def datastores(self) -> tuple[str, ...]:
        return tuple(sorted(self.available))

    async def keep_volumes(self, volumes: Iterable[str]) -> None:
        self.kept += tuple(volumes)

    def known_datastores(self) -> tuple[str, ...]:
        return tuple(sorted(self.known))

    def vms_folder(self, datastore: str) -> Path:
        if datastore not in self.known:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no datastore {datastore}.")
        if datastore not in self.available:
            raise MicaError(ErrorCode.UNAVAILABLE, f"Datastore {datastore} is not there.")
        return self.root / datastore / "vms"

    def volume(self, volume: str, *, while_busy: bool = False) -> VolumeFile:  # noqa: ARG002
        if volume not in self.volumes:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no volume {volume}.")
        if volume in self.faults:
            raise MicaError(ErrorCode.CONFLICT, f"Volume {volume}: {self.faults[volume]}.")
        return self.volumes[volume]

    def image(self, image: str) -> ImageFile:
        if image not in self.images:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no image {image}.")
        return self.images[image]

    def datastore_of_volume(self, volume: str) -> str | None:
        found = self.volumes.get(volume)
        return None if found is None or found.datastore not in self.available else found.datastore

    def datastore_of_image(self, image: str) -> str | None:
        found = self.images.get(image)
        return None if found is None or found.datastore not in self.available else found.datastore

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
        if self.copy_fails == source:
            raise MicaError(ErrorCode.INSUFFICIENT_SPACE, "No space is left.")
        if self.copy_waits is not None:
            await self.copy_waits.wait()
        old = self.volumes[source]
        on_progress(old.size_bytes, old.size_bytes)
        kept = past.file if past and past.file else old.path
        self.add_volume(new, source=kept, datastore=datastore or old.datastore)
        if past and past.tag:
            self.volumes[new].path.write_bytes(self.qemu_img.kept[old.path][past.tag])
        self.clones[new] = clone
        return False

    async def link_volume(self, source: str, new: str, *, clone: str) -> None:
        base = self.volumes[source]
        self.add_volume(new, datastore=base.datastore)
        layer = VolumeLayer(path=base.path, format=base.format)
        self.volumes[new] = msgspec.structs.replace(
            self.volumes[new], format=VolumeFormat.QCOW2, backing=(layer,)
        )
        self.volumes[source] = msgspec.structs.replace(base, children=(*base.children, new))
        self.clones[new] = clone

    def children(self, volume: str) -> tuple[str, ...]:
        return self.volumes[volume].children if volume in self.volumes else ()

    def clone_of(self, volume: str) -> str | None:
        return self.clones.get(volume)

    def refuse_children(self, volume: str) -> None:
        if children := self.children(volume):
            raise MicaError(ErrorCode.IN_USE, f"Volume {volume} must stay: {children[0]}.")

    def fault(self, volume: str) -> str | None:
        if volume not in self.volumes:
            return f"there is no volume {volume}"
        return self.faults.get(volume)

    async def refresh(self, volumes: Sequence[str]) -> None:
        self.looked_at += volumes

    async def delete_volume(self, volume: str, *, actor: str) -> None:  # noqa: ARG002
        self.volumes[volume].path.unlink()
        del self.volumes[volume]
        self.clones.pop(volume, None)
        for name, base in list(self.volumes.items()):
            left = tuple(child for child in base.children if child != volume)
            self.volumes[name] = msgspec.structs.replace(base, children=left)
        self.deleted.append(volume)

    def on_datastore_change(self, callback: Callable[[str, bool], None]) -> None:
        self.callbacks.append(callback)

    # --- for tests ----------------------------------------------------------------------------

    def add_volume(
        self,
        name: str,
        *,
        size_bytes: int = 1 << 20,
        source: Path | None = None,
        datastore: str = "main",
    ) -> VolumeFile:
        path = self.root / datastore / f"{name}.raw"
        if source is not None:
            path.write_bytes(source.read_bytes())
        else:
            with path.open("wb") as file:
                file.truncate(size_bytes)
        self.volumes[name] = VolumeFile(
            id=name,
            datastore=datastore,
            path=path,
            format=VolumeFormat.RAW,
            size_bytes=path.stat().st_size,
        )
        return self.volumes[name]

    def add_image(
        self, name: str, kind: ImageFormat, source: Path | None = None, datastore: str = "main"
    ) -> ImageFile:
        path = source
        if path is None:
            path = self.root / datastore / f"{name}.{kind.value}"
            path.write_bytes(b"image")
        self.images[name] = ImageFile(
            id=name,
            datastore=datastore,
            path=path,
            format=kind,
            size_bytes=path.stat().st_size,
        )
        return self.images[name]

    def change(self, datastore: str, available: bool) -> None:
        if available:
            self.available.add(datastore)
        for callback in self.callbacks:
            callback(datastore, available)
        if not available:
            self.available.discard(datastore)
