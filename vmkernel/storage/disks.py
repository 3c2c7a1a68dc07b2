"""The host's disks and what they hold, as the API tells it; nothing here writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from vmkernel.host.blkid import Signature, probe
from vmkernel.host.block import BlockDisk, BlockPartition, BlockTree
from vmkernel.host.errors import HostError
from vmkernel.host.runner import Runner
from vmkernel.model import Disk, DiskPartition

__all__ = ["Disks"]

_FRESH_S = 2.0
"""Lists are often read again at once, page by page; probing costs a process a partition."""
_UNREADABLE = Signature(filesystem="unreadable")


class Disks:
    """Reads disks; `stick` tells the name of the boot stick, `datastores` who lives on which."""

    def __init__(
        self,
        runner: Runner,
        tree: BlockTree,
        stick: Callable[[], str | None],
        datastores: Callable[[], dict[str, str]],
    ) -> None:
        self._runner = runner
        self._tree = tree
        self._stick = stick
        self._datastores = datastores
        self._lock = asyncio.Lock()
        self._cached: tuple[Disk, ...] = ()
        self._cached_s = float("-inf")

    async def list(self) -> tuple[Disk, ...]:
        """All disks by id."""
        async with self._lock:
            if time.monotonic() - self._cached_s > _FRESH_S:
                found = await asyncio.to_thread(self._tree.disks)
                described = [await self._describe(disk) for disk in found]
                self._cached = tuple(sorted(described, key=lambda disk: disk.id))
                self._cached_s = time.monotonic()
            return self._cached

    def forget(self) -> None:
        """What disks hold has changed."""
        self._cached_s = float("-inf")

    async def _describe(self, disk: BlockDisk) -> Disk:
        whole = await self._probe(disk)
        partitions = []
        if whole.filesystem is not None:
            partitions.append(_partition(0, disk.size_bytes, whole))
        for part in disk.partitions:
            partitions.append(_partition(part.number, part.size_bytes, await self._probe(part)))
        lives = self._datastores()
        nodes = [str(disk.path), *(str(part.path) for part in disk.partitions)]
        return Disk(
            id=disk.id,
            device=str(disk.path),
            model=disk.model,
            serial=disk.serial,
            size_bytes=disk.size_bytes,
            transport=disk.transport,
            rotational=disk.rotational,
            removable=disk.removable,
            is_stick=disk.name == self._stick(),
            blank=whole.blank and not disk.partitions,
            partitions=tuple(partitions),
            datastore=next((lives[node] for node in nodes if node in lives), None),
        )

    async def _probe(self, device: BlockDisk | BlockPartition) -> Signature:
        try:
            return await probe(self._runner, device.path)
        except HostError:
            return _UNREADABLE


def _partition(number: int, size_bytes: int, signature: Signature) -> DiskPartition:
    return DiskPartition(
        number=number,
        size_bytes=size_bytes,
        filesystem=signature.filesystem,
        label=signature.label,
        uuid=signature.uuid,
    )
