"""A Storage that keeps everything in one folder: the real interface, without datastores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vmkernel.host import Runner
from vmkernel.host.qemu_img import QemuImg
from vmkernel.host.worker import Workers
from vmkernel.model import ErrorCode, ImageFormat, MicaError, VolumeFormat
from vmkernel.vm.ports import ImageFile, VolumeFile

__all__ = ["FakeQemuImg", "FolderStorage"]


class FakeQemuImg(QemuImg):
    """Snapshots inside qcow2 files, kept apart from them."""

    def __init__(self) -> None:
        super().__init__(Workers(Runner()))
        self.kept: dict[Path, dict[str, bytes]] = {}
        self.marks: dict[Path, set[str]] = {}
        """Dirty bitmaps."""
        self.fails_at: str | None = None
        """An action that fails the next time."""

    async def snapshot(
        self,
        action: str,
        tag: str,
        path: Path,
        *,
        user: int | None = None,  # noqa: ARG002
    ) -> None:
        if action == self.fails_at:
            self.fails_at = None
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

    async def snapshots(self, path: Path, *, user: int | None = None) -> frozenset[str]:  # noqa: ARG002
        return frozenset(self.kept.get(path, {}))

    async def bitmaps(self, path: Path, *, user: int | None = None) -> dict[str, bool]:  # noqa: ARG002
        return dict.fromkeys(self.marks.get(path, ()), True)

    async def add_bitmap(self, name: str, path: Path, *, user: int | None = None) -> None:  # noqa: ARG002
        self.marks.setdefault(path, set()).add(name)

    async def remove_bitmap(self, name: str, path: Path, *, user: int | None = None) -> None:  # noqa: ARG002
        self.marks[path].remove(name)


class FolderStorage:
    """One or more datastores below a folder."""

    def __init__(self, root: Path, datastores: tuple[str, ...] = ("main",)) -> None:
        self.root = root
        self.available = set(datastores)
        self.known = set(datastores)
        self.volumes: dict[str, VolumeFile] = {}
        self.images: dict[str, ImageFile] = {}
        self.deleted: list[str] = []
        self.copy_fails: str | None = None
        self.qemu_img = FakeQemuImg()
        self.callbacks: list[Callable[[str, bool], None]] = []
        for name in datastores:
            (root / name / "vms").mkdir(parents=True)

    def datastores(self) -> tuple[str, ...]:
        return tuple(sorted(self.available))

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
        return self.volumes[volume]

    def image(self, image: str) -> ImageFile:
        if image not in self.images:
            raise MicaError(ErrorCode.NOT_FOUND, f"There is no image {image}.")
        return self.images[image]

    async def copy_volume(
        self,
        source: str,
        new: str,
        *,
        datastore: str | None,
        on_progress: Callable[[int, int], None],
    ) -> None:
        if self.copy_fails == source:
            raise MicaError(ErrorCode.INSUFFICIENT_SPACE, "No space is left.")
        old = self.volumes[source]
        on_progress(old.size_bytes, old.size_bytes)
        self.add_volume(new, source=old.path, datastore=datastore or old.datastore)

    async def delete_volume(self, volume: str, *, actor: str) -> None:  # noqa: ARG002
        self.volumes[volume].path.unlink()
        del self.volumes[volume]
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
