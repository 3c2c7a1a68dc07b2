"""The host's disks, their content and health, as shown by the API; and wiping them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from vmkernel.host.blkid import Signature, probe
from vmkernel.host.block import BlockDisk, BlockPartition
from vmkernel.host.errors import HostError
from vmkernel.model import (
    DatastoreKind,
    Disk,
    DiskPartition,
    ErrorCode,
    Finding,
    MicaError,
    Operation,
    Subject,
)
from vmkernel.operations import OperationContext, OperationRegistry
from vmkernel.storage.disks.health import DiskHealthWatch
from vmkernel.storage.drivers.base import DatastoreDriver
from vmkernel.storage.drivers.disk_selection import DATASTORE_TYPE, MEMBER_TYPE, DiskChoice

__all__ = ["Disks", "NoDisks"]

_FRESH_S = 2.0
"""Lists are often read page by page; probing costs a process per partition."""
_UNREADABLE = Signature(filesystem="unreadable")


class Disks:
    """`stick` returns the name of the boot stick, `datastores` which datastore is on which device
    node or disk id.
    """

    def __init__(
        self,
        choice: DiskChoice,
        stick: Callable[[], str | None],
        datastores: Callable[[], dict[str, str]],
        health: DiskHealthWatch,
        drivers: Callable[[], tuple[DatastoreDriver, ...]],
        operations: OperationRegistry,
    ) -> None:
        self._choice = choice
        self._stick = stick
        self._datastores = datastores
        self._drivers = drivers
        self._operations = operations
        self.health = health
        self._lock = asyncio.Lock()
        self._cached: tuple[Disk, ...] = ()
        self._cached_s = float("-inf")

    async def list(self) -> tuple[Disk, ...]:
        """All disks by id."""
        async with self._lock:
            if time.monotonic() - self._cached_s > _FRESH_S:
                found = await asyncio.to_thread(self._choice.tree.disks)
                described = [await self._describe(disk) for disk in found]
                self._cached = tuple(sorted(described, key=lambda disk: disk.id))
                self._cached_s = time.monotonic()
            return self._cached

    async def watch(self) -> None:
        """Read the health of the disks again and again; until cancelled."""
        await self.health.watch()

    def findings(self) -> Iterator[Finding]:
        """Disks that are failing."""
        yield from self.health.findings()

    def forget(self) -> None:
        """Called when the content of disks has changed."""
        self._cached_s = float("-inf")

    async def wipe(self, disk_id: str, wipe_serial: str, *, actor: str) -> Operation:
        """Destroy all data on a disk; refused if it is part of a datastore, or in use."""
        self.forget()
        if wipe_serial != disk_id:
            raise MicaError.field(
                "/wipe_serial",
                f"wipe_serial is not the id of disk {disk_id}.",
                ErrorCode.WIPE_NOT_CONFIRMED,
            )
        await self._refuse_datastores(disk_id)
        async with self._choice.lock:
            await self._release_strays()
            await self._choice.usable(disk_id, "/disk")

        async def work(_: OperationContext) -> None:
            async with self._choice.lock:
                await self._refuse_datastores(disk_id)
                await self._release_strays()
                await self._choice.clear(await self._choice.usable(disk_id, "/disk"))
            self.forget()

        subject = Subject(kind="disk", id=disk_id)
        return self._operations.begin("disk.wipe", subject, work, actor=actor)

    async def _release_strays(self) -> None:
        for driver in self._drivers():
            await driver.release_strays()

    async def _refuse_datastores(self, disk_id: str) -> None:
        disk = await self._choice.disk(disk_id, "/disk")
        owner = _owner(disk, await asyncio.to_thread(self._datastores))
        if owner is not None:
            raise MicaError.field(
                "/disk",
                f"Disk {disk_id} belongs to datastore {owner}; delete that first.",
                ErrorCode.IN_USE,
            )

    async def _describe(self, disk: BlockDisk) -> Disk:
        whole = await self._probe(disk)
        partitions = []
        if whole.filesystem is not None:
            partitions.append(_partition(0, disk.size_bytes, whole))
        for part in disk.partitions:
            partitions.append(_partition(part.number, part.size_bytes, await self._probe(part)))
        owner = _owner(disk, await asyncio.to_thread(self._datastores))
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
            datastore=owner,
            adoptable=None if owner else await self._adoptable(disk, partitions),
            health=self.health.of(disk.id),
        )

    async def _adoptable(
        self, disk: BlockDisk, parts: Sequence[DiskPartition]
    ) -> DatastoreKind | None:
        """The kind of datastore that the disk holds, or is part of."""
        holds = {part.number: part.filesystem for part in parts}
        for partition_type in (DATASTORE_TYPE, MEMBER_TYPE):
            found = await asyncio.to_thread(self._choice.partition, disk, partition_type)
            if found is None:
                continue
            for driver in self._drivers():
                if driver.recognises(partition_type, holds.get(found.partition.number)):
                    return driver.kind
        return None

    async def _probe(self, device: BlockDisk | BlockPartition) -> Signature:
        try:
            return await probe(self._choice.runner, device.path)
        except HostError:
            return _UNREADABLE


class NoDisks:
    """Hosted mode: the disks of the machine are not Mica's."""

    async def list(self) -> tuple[Disk, ...]:
        return ()

    async def wipe(self, disk_id: str, wipe_serial: str, *, actor: str) -> Operation:
        """`unsupported`."""
        del disk_id, wipe_serial, actor
        raise MicaError(ErrorCode.UNSUPPORTED, "In hosted mode, Mica does not manage disks.")

    async def watch(self) -> None: ...

    def findings(self) -> Iterator[Finding]:
        return iter(())


def _owner(disk: BlockDisk, lives: dict[str, str]) -> str | None:
    """The datastore that a disk belongs to."""
    nodes = [str(disk.path), *(str(part.path) for part in disk.partitions), disk.id]
    return next((lives[node] for node in nodes if node in lives), None)


def _partition(number: int, size_bytes: int, signature: Signature) -> DiskPartition:
    return DiskPartition(
        number=number,
        size_bytes=size_bytes,
        filesystem=signature.filesystem,
        label=signature.label,
        uuid=signature.uuid,
    )
