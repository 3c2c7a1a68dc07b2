"""A storage service on a temporary directory, with a qemu-img that only pretends."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tests.unit.state.ram_medium import RamMedium
from tests.unit.storage.samples import qcow2
from vmkernel.events import EventBus
from vmkernel.host.qemu_img import CheckReport, Layer, QemuImg
from vmkernel.host.runner import Runner
from vmkernel.host.worker import Workers
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    ImageFormat,
    ImageSource,
    Operation,
    OperationState,
    SourceFormat,
    VolumeFormat,
)
from vmkernel.operations import OperationRegistry
from vmkernel.state import StateLog, StateStore
from vmkernel.storage.drivers.base import CreateOptions
from vmkernel.storage.drivers.registry import hosted_drivers
from vmkernel.storage.formats.open_disk import verify_open_disk
from vmkernel.storage.service import StorageService

__all__ = ["FakeUsers", "PretendingQemuImg", "World", "image_spec", "run"]


class PretendingQemuImg(QemuImg):
    """Writes headers instead of disks; `gate` holds conversions up, `error` fails them."""

    def __init__(self) -> None:
        super().__init__(Workers(Runner()), verify_open_disk)
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.calls: list[str] = []
        self.limits: list[int] = []
        """How large copies might become."""
        self.report = CheckReport(0, 0, 0, 0)
        self.needed_bytes: int | None = None
        """What a copy needs, where that isn't the length of the source."""
        self.inside: dict[str, set[str]] = {}
        """The snapshots inside files, by the files' names."""

    async def create_qcow2(
        self,
        path: Path,
        size_bytes: int,
        *,
        thick: bool = False,  # noqa: ARG002
    ) -> None:
        """A header alone."""
        self.calls.append("create")
        if self.error is not None:
            path.write_bytes(b"half")
            raise self.error
        path.write_bytes(qcow2(size=size_bytes))

    async def create_linked(
        self,
        path: Path,
        size_bytes: int,
        *,
        backing_name: str,
        backing_format: str,
    ) -> None:
        """A header alone, with the name."""
        self.calls.append(f"link {backing_name} {backing_format}")
        if self.error is not None:
            raise self.error
        path.write_bytes(qcow2(size=size_bytes, backing_name=backing_name))

    async def convert(
        self,
        source: Path,  # noqa: ARG002
        source_format: str,
        target: Path,
        target_format: str,
        *,
        file_bytes: int,
        thick: bool = False,  # noqa: ARG002
        on_fraction: Callable[[float], None],
        compress: bool = False,  # noqa: ARG002
        chain: Sequence[Layer] = (),
        snapshot: str | None = None,
        overlay: Path | None = None,
    ) -> None:
        """Half of it, a pause, and the other half."""
        below = "".join(f" on {path.name}" for path, _ in chain)
        self.limits.append(file_bytes)
        past = f" at {snapshot}" if snapshot else ""
        over = "" if overlay is None else " with its log"
        self.calls.append(f"convert {source_format} {target_format}{below}{past}{over}")
        target.write_bytes(b"half")
        on_fraction(0.5)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        target.write_bytes(qcow2(size=1 << 26) if target_format == "qcow2" else bytes(4096))
        on_fraction(1.0)

    async def resize(
        self,
        path: Path,
        image_format: str,
        size_bytes: int,
        *,
        shrink: bool,
        thick: bool = False,  # noqa: ARG002
    ) -> None:
        """Another header, or another length."""
        self.calls.append(f"resize {image_format} {size_bytes} {shrink}")
        if image_format == "qcow2":
            path.write_bytes(qcow2(size=size_bytes))
        else:
            with path.open("r+b") as file:
                file.truncate(size_bytes)

    async def measure(
        self,
        source: Path,
        source_format: str,  # noqa: ARG002
        *,
        chain: Sequence[Layer] = (),  # noqa: ARG002
        snapshot: str | None = None,  # noqa: ARG002
        overlay: Path | None = None,  # noqa: ARG002
    ) -> int:
        """As much as the file has."""
        return self.needed_bytes or source.stat().st_size

    async def replay(
        self, source: Path, source_format: str, overlay: Path, *, file_bytes: int
    ) -> int:
        """A header alone, and a size that only the log knows."""
        del source
        self.limits.append(file_bytes)
        self.calls.append(f"replay {source_format}")
        overlay.write_bytes(b"half")
        if self.error is not None:
            raise self.error
        return 1 << 25

    async def snapshots(self, path: Path) -> frozenset[str]:
        return frozenset(self.inside.get(path.name, ()))

    async def snapshot(self, action: str, tag: str, path: Path) -> None:
        assert action == "-d"
        self.inside[path.name].remove(tag)

    async def data_end(self, path: Path, image_format: str) -> int:  # noqa: ARG002
        """No piece is missing."""
        return 0

    async def check(self, path: Path, image_format: str, *, repair: str | None) -> CheckReport:
        """What the test says."""
        del path
        self.calls.append(f"check {image_format} {repair}")
        found, self.report = self.report, replace(self.report, corruptions=0, leaks=0)
        return found


class FakeLive:
    """A QEMU that has every volume open."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gate: asyncio.Event | None = None
        self.before: Exception | None = None
        self.after: Exception | None = None

    async def resize(self, volume: str, size_bytes: int) -> None:
        """Only told."""
        self.calls.append(f"resize {volume} {size_bytes}")

    async def mirror(
        self,
        volume: str,
        target: Path,
        target_format: VolumeFormat,
        *,
        on_progress: Callable[[int, int], None],
        commit: Callable[[], Awaitable[None]],
        revert: Callable[[], Awaitable[None]],
    ) -> None:
        """Half, a pause, and the last step, with failures before and after it."""
        assert target.exists()
        self.calls.append(f"mirror {volume} {target_format}")
        on_progress(1, 2)
        if self.gate is not None:
            await self.gate.wait()
        if self.before is not None:
            raise self.before
        await commit()
        if self.after is not None:
            await revert()
            raise self.after


class FakeUsers:
    """The VM side, as far as storage asks it."""

    def __init__(self) -> None:
        self.volumes: dict[str, str] = {}
        self.claims: set[str] = set()
        """The volumes that VMs are about to name."""
        self.unknown = False
        """True while not all VMs are known."""
        self.open: set[str] = set()
        self.images: dict[str, tuple[str, ...]] = {}
        self.active: dict[str, tuple[str, ...]] = {}
        """The VMs on datastores that are not certainly off."""
        self.off: dict[str, tuple[str, ...]] = {}
        self.snapshots: dict[str, tuple[str, ...]] = {}
        self.tags: dict[str, frozenset[str]] | None = {}

    def vm_of_volume(self, volume: str) -> str | None:
        """The VM that names the volume."""
        return self.volumes.get(volume)

    def names_volume(self, volume: str) -> bool | None:
        """True if a stored spec does."""
        if volume in self.volumes:
            return True
        return None if self.unknown or volume in self.claims else False

    def volume_is_open(self, volume: str) -> bool:
        """True where its VM is not certainly off."""
        return volume in self.open

    def snapshots_of(self, volume: str) -> tuple[str, ...]:
        return self.snapshots.get(volume, ())

    def snapshot_tags(self, volume: str) -> frozenset[str] | None:
        return None if self.tags is None else self.tags.get(volume, frozenset())

    def vms_of_image(self, image: str) -> tuple[str, ...]:
        """The VMs that name the image."""
        return self.images.get(image, ())

    def vms_on_datastore(self, datastore: str, *, active: bool = False) -> tuple[str, ...]:
        """The VMs there; only those not certainly off where `active`."""
        off = () if active else self.off.get(datastore, ())
        return (*self.active.get(datastore, ()), *off)


class World:
    """Everything that storage needs; `root` may hold datastores of an earlier world."""

    def __init__(self, root: Path, medium: RamMedium | None = None) -> None:
        self.root = root
        self.medium = medium or RamMedium(slots=4, slot_bytes=1 << 16)
        self.store = StateStore(StateLog(self.medium))
        self.store.open()
        self.bus = EventBus()
        self.heard = self.bus.subscribe()
        self.operations = OperationRegistry(self.bus)
        self.qemu_img = PretendingQemuImg()
        self.users = FakeUsers()
        self.storage = StorageService(
            self.store,
            self.operations,
            self.bus,
            hosted_drivers(),
            self.qemu_img,
            Workers(Runner()),
        )
        self.storage.usage.bind(self.users)
        self.live = FakeLive()
        self.storage.usage.bind_live(lambda: self.live)

    def spec(self, name: str = "d") -> DatastoreSpec:
        """A datastore in a directory below the root."""
        return DatastoreSpec(
            kind=DatastoreKind.DIRECTORY,
            path=str(self.root / name),
            warning_percent=100,  # whatever else fills the disk that the tests run on
            critical_percent=100,
        )

    async def ended(self, operation: Operation) -> Operation:
        """The operation once it has ended."""
        return await self.operations.wait(operation.id, 10)

    async def succeeded(self, operation: Operation) -> Operation:
        """The same, and it must have succeeded."""
        ended = await self.ended(operation)
        assert ended.state is OperationState.SUCCEEDED, ended.error
        return ended

    async def datastore(self, name: str = "d") -> None:
        """Make a datastore."""
        await self.succeeded(
            await self.storage.datastore_changes.create(
                name, self.spec(name), CreateOptions(), actor="test"
            )
        )

    async def upload(
        self,
        image_id: str,
        data: bytes,
        image_format: ImageFormat = ImageFormat.QCOW2,
        *,
        spec: ImageSource | None = None,
    ) -> Operation:
        """Send all of `data` and wait for the end."""
        wanted = spec or image_spec(data, image_format)
        operation, stream = await self.storage.images.upload(image_id, wanted, actor="test")
        await asyncio.to_thread(_send, stream, data)
        return await self.ended(operation)

    def files(self) -> list[str]:
        """All files of all datastores."""
        return sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_file() and not path.name.startswith("mica-")
        )


def image_spec(data: bytes, image_format: ImageFormat, **changes: object) -> ImageSource:
    """A true (or changed) declaration of an image."""
    fields = {
        "datastore": "d",
        "format": SourceFormat(image_format.value),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **changes,
    }
    return ImageSource(**fields)  # type: ignore[arg-type]


def _send(stream: socket.socket, data: bytes) -> None:
    try:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        stream.recv(1)
    except OSError:
        return
    finally:
        stream.close()


def run(root: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    """Run a scenario in a world with one datastore `d`."""

    async def main() -> None:
        world = World(root)
        await world.storage.start()
        await world.datastore()
        try:
            async with asyncio.timeout(30):
                await scenario(world)
        finally:
            await world.operations.close()
            await world.storage.stop()

    asyncio.run(main())
