"""Backups of a VM with a disk in qcow2 and one in raw, over QEMUs whose block layer is modelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tests.unit.vm.fake_blocks import CLUSTER, BlockLauncher, Blocks
from tests.unit.vm.world import World
from vmkernel.model import (
    Backup,
    DiskSpec,
    ErrorCode,
    MicaError,
    OperationState,
    VmAction,
    VolumeFormat,
)

__all__ = ["BackupStory", "SIZE", "backups"]

SIZE = 16 * CLUSTER


class BackupStory:
    """What tests of backups do."""

    def __init__(self, root: Path) -> None:
        self.launcher = BlockLauncher()
        self.world = World(root, self.launcher)
        self.scratches: list[Path] = []
        """Those that were made."""
        self.room = 100
        """For so many scratch files there is space."""
        for name in ("data", "more"):
            volume = self.world.storage.add_volume(name, size_bytes=SIZE)
            form = VolumeFormat.QCOW2 if name == "data" else VolumeFormat.RAW
            self.world.storage.volumes[name] = replace(volume, format=form)

    @property
    def service(self) -> Any:
        """The service of the present vmkernel."""
        return self.world.vms.backups(self.make_scratch)

    @property
    def blocks(self) -> Blocks:
        """Of the present QEMU."""
        return self.launcher.blocks["web"]

    async def make_scratch(self, volume: str, size_bytes: int) -> Path:
        assert size_bytes == SIZE
        if len(self.scratches) >= self.room:
            raise MicaError(ErrorCode.INSUFFICIENT_SPACE, "No space is left on datastore main.")
        path = self.world.storage.root / "main" / f".scratch-{volume}-{len(self.scratches)}"
        path.write_bytes(b"")
        self.scratches.append(path)
        return path

    async def begin(
        self,
        *,
        disks: tuple[str, ...] | None = None,
        checkpoint: str | None = None,
        since: str | None = None,
        time_limit_s: int = 3600,
    ) -> Backup:
        backup: Backup = await self.service.begin(
            "web",
            disks=disks,
            checkpoint=checkpoint,
            since=since,
            time_limit_s=time_limit_s,
            actor="anna",
        )
        return backup

    async def end(self, backup: Backup) -> None:
        await self.service.end("web", backup.id, actor="anna")

    async def content(self, backup: Backup, key: str) -> dict[int, bytes]:
        """Each extent's bytes, as one who makes a backup reads them."""
        found = {}
        offset: int | None = 0
        while offset is not None:
            extents, offset = await self.service.extents("web", backup.id, key, offset)
            for extent in extents:
                found[extent.offset] = (
                    bytes(extent.length)
                    if extent.zero
                    else await self.read(backup, key, extent.offset, extent.length)
                )
        return found

    async def read(self, backup: Backup, key: str, offset: int, length: int) -> bytes:
        stream = await self.service.read("web", backup.id, key, offset, length)
        stream.setblocking(False)
        with stream:
            data = b""
            loop = asyncio.get_running_loop()
            while piece := await loop.sock_recv(stream, 1 << 20):
                data += piece
            return data

    def nothing_is_left(self) -> None:
        """Neither in QEMU nor on disk; and whatever a backup blocks may be done again."""
        assert self.launcher.blocks["web"].left() == []
        assert not any(path.exists() for path in self.scratches)
        assert not (self.world.host.folder("web").path / "nbd.sock").exists()
        assert self.service.list("web") == ()
        with self.world.vms.inventory.hold("web", "the test works on it", frozenset()):
            pass


@contextlib.asynccontextmanager
async def backups(root: Path, *, started: bool = True) -> AsyncIterator[BackupStory]:
    """A VM that runs, or is off."""
    story = BackupStory(root)
    world = story.world
    await world.vms.start()
    try:
        disks = tuple(DiskSpec(volume=name) for name in ("data", "more"))
        await world.create(disks=disks)
        if started:
            operation = await world.act(VmAction.START)
            assert operation.state is OperationState.SUCCEEDED, operation.error
        yield story
    finally:
        await world.operations.close()
        await world.vms.stop()
