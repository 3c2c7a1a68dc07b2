"""Which disks may become part of a datastore, and what must be confirmed first.

disk ---> is it there, writable, not the stick, unused?        else refused, whatever is agreed to
      |-> blank --------------------------------------------> partition it
      |-> anything on it: do the wipe serials name its id? -> wipe it, then as blank
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from vmkernel.host import disk_tools
from vmkernel.host.blkid import Signature, probe
from vmkernel.host.block import STATE_TYPE_GUID, BlockDisk, BlockPartition, BlockTree
from vmkernel.host.errors import HostError
from vmkernel.host.gpt import GptPartition
from vmkernel.host.mounts import mounts
from vmkernel.host.runner import Runner
from vmkernel.model import ErrorCode, MicaError
from vmkernel.storage.drivers.base import CreateOptions

__all__ = [
    "DATASTORE_TYPE",
    "DiskChoice",
    "Found",
    "MEMBER_NAME",
    "MEMBER_TYPE",
    "MIN_DISK_BYTES",
    "describe",
]

DATASTORE_TYPE = "6d696361-6461-4461-a5e5-1b7c8d9e0f21"
"""The GPT type of a partition that holds a datastore. Never changes: disks in use have it."""
MEMBER_TYPE = "6d696361-6d65-4d62-a5e5-2c8d9e0f1b32"
"""The GPT type of a partition that is part of a datastore on several disks. Never changes."""
MEMBER_NAME = "mica-member"
"""The name of such a partition; nothing depends on it."""
MIN_DISK_BYTES = 512 << 20
"""mkfs.xfs refuses less than 300 MB."""


@dataclass(frozen=True)
class Found:
    """A partition of one of Mica's types, and its disk."""

    disk: BlockDisk
    partition: BlockPartition
    unique_guid: str


class DiskChoice:
    """Chooses and prepares disks; `stick` returns the name of the disk that is never taken."""

    def __init__(self, runner: Runner, tree: BlockTree, stick: Callable[[], str | None]) -> None:
        self.runner = runner
        self.tree = tree
        self._stick = stick
        self.lock = asyncio.Lock()
        """Held while disks are changed."""

    # --- finding ------------------------------------------------------------------------------

    def find(self, type_guid: str) -> tuple[Found, ...]:
        """The partitions of a type on all disks (blocking)."""
        found = []
        for disk in self.tree.disks():
            if (mine := self.partition(disk, type_guid)) is not None:
                found.append(mine)
        return tuple(found)

    def partition(self, disk: BlockDisk, type_guid: str) -> Found | None:
        """The partition of a type on a disk (blocking)."""
        for entry in self._table(disk):
            if entry.type_guid == type_guid:
                node = self.tree.partition_node(disk, entry.number)
                if node is not None:
                    return Found(disk, node, entry.unique_guid)
        return None

    async def disk(self, disk_id: str, pointer: str) -> BlockDisk:
        """A disk by its id; `invalid` at `pointer` if it is missing."""
        disks = await asyncio.to_thread(self.tree.disks)
        disk = next((disk for disk in disks if disk.id == disk_id), None)
        if disk is None:
            raise MicaError.field(pointer, f"There is no disk {disk_id}.")
        return disk

    # --- judging ------------------------------------------------------------------------------

    async def usable(self, disk_id: str, pointer: str) -> BlockDisk:
        """A writable disk that is not in use; else refused at `pointer`."""
        disk = await self.disk(disk_id, pointer)
        table = await asyncio.to_thread(self._table, disk)
        bears_state = any(entry.type_guid == STATE_TYPE_GUID for entry in table)
        if disk.name == self._stick() or bears_state:
            raise MicaError.field(pointer, "The boot stick can't be a datastore.")
        if disk.read_only:
            raise MicaError.field(pointer, f"Disk {disk.id} can't be written.")
        if disk.size_bytes < MIN_DISK_BYTES:
            raise MicaError.field(
                pointer, f"Disk {disk.id} is smaller than {MIN_DISK_BYTES >> 20} MiB."
            )
        if user := await asyncio.to_thread(self.user_of, disk):
            raise MicaError.field(pointer, f"Disk {disk.id} is in use: {user}.", ErrorCode.IN_USE)
        return disk

    def user_of(self, disk: BlockDisk) -> str | None:
        """What uses a disk now (blocking)."""
        for entry in mounts():
            if entry.device_number in disk.device_numbers:
                return f"{entry.filesystem} of it is mounted"
        holders = {*disk.holders, *(name for part in disk.partitions for name in part.holders)}
        if not holders:
            return None
        name = min(holders)
        return f"the RAID array {name} holds it" if name.startswith("md") else f"{name} holds it"

    async def blank(self, disk: BlockDisk) -> bool:
        """True if nothing known is on it."""
        return not disk.partitions and (await probe(self.runner, disk.path)).blank

    async def confirm(self, disks: tuple[BlockDisk, ...], options: CreateOptions) -> None:
        """Refuse unless each of the disks is blank or named by the wipe serials.

        A serial that names none of them is refused too: it is probably a mistake.
        """
        ids = {disk.id for disk in disks}
        for place, serial in enumerate(options.wipe_serials):
            if serial not in ids:
                raise MicaError.field(
                    f"/wipe_serials/{place}",
                    f"{serial} is not the id of a disk that is asked for.",
                    ErrorCode.WIPE_NOT_CONFIRMED,
                )
        for disk in disks:
            if disk.id in options.wipe_serials or await self.blank(disk):
                continue
            raise MicaError.field(
                "/wipe_serials",
                f"Disk {disk.id} holds {await self.contents(disk)}; to wipe it, give its id in"
                " wipe_serials.",
                ErrorCode.WIPE_NOT_CONFIRMED,
            )

    async def contents(self, disk: BlockDisk) -> str:
        """A disk's content, in words."""
        for part in disk.partitions:
            signature = await probe(self.runner, part.path)
            if signature.filesystem == "linux_raid_member":
                return f"a member of the RAID array {signature.label or signature.uuid}"
            if signature.filesystem == "LVM2_member":
                return "a member of an LVM volume group"
        return describe(await probe(self.runner, disk.path))

    # --- changing -----------------------------------------------------------------------------

    async def clear(self, disk: BlockDisk) -> None:
        """Erase a disk; the caller has checked the options."""
        disk_tools.hold_exclusively(disk.path)
        for partition in disk.partitions:
            await disk_tools.wipe(self.runner, partition.path)
        await disk_tools.wipe(self.runner, disk.path)
        await asyncio.to_thread(disk_tools.read_partitions_again, disk.path)

    async def partition_whole(self, disk: BlockDisk, type_guid: str, name: str) -> Found:
        """Erase a disk and give it one partition; the caller has checked the options."""
        await self.clear(disk)
        await disk_tools.make_one_partition(self.runner, disk.path, type_guid=type_guid, name=name)
        found: Found | None = None

        def appeared() -> bool:
            nonlocal found
            for other in self.tree.disks():
                if other.name == disk.name:
                    found = self.partition(other, type_guid)
            return found is not None and found.partition.path.exists()

        await disk_tools.wait_for(appeared, what=f"The new partition of disk {disk.id}")
        assert found is not None
        await disk_tools.wipe(self.runner, found.partition.path)
        return found

    async def grow_partition(self, found: Found) -> None:
        """Extend a partition to the end of its disk, which may have grown."""
        from vmkernel.host.grow import rescan_disk, resize_partition

        disk = found.disk
        try:
            await asyncio.to_thread(rescan_disk, disk.name)
            disk = await self.disk(disk.id, "/id")
            if not await asyncio.to_thread(self._has_room, disk, found):
                return
            await disk_tools.grow_last_partition(self.runner, disk.path, found.partition.number)
            table = await asyncio.to_thread(self._table, disk)
            entry = next(item for item in table if item.number == found.partition.number)
            await asyncio.to_thread(
                resize_partition, disk.path, entry.number, entry.first_byte, entry.size_bytes
            )
        except OSError as error:
            raise HostError(f"Disk {disk.id} can't be grown: {error.strerror}.") from error

    def _has_room(self, disk: BlockDisk, found: Found) -> bool:
        """True if at least 1 MiB is free behind the partition, and nothing else is there."""
        table = self._table(disk)
        mine = next((item for item in table if item.number == found.partition.number), None)
        if mine is None:
            return False
        end = mine.first_byte + mine.size_bytes
        if any(item.first_byte >= end for item in table):
            return False
        return disk.size_bytes - end >= 2 << 20

    def _table(self, disk: BlockDisk) -> tuple[GptPartition, ...]:
        try:
            return self.tree.gpt(disk) or ()
        except OSError:
            return ()


def describe(signature: Signature) -> str:
    """A signature in words."""
    if signature.filesystem is not None:
        return f"{signature.filesystem} data"
    if signature.partition_table is not None:
        return f"a partition table ({signature.partition_table})"
    return "partitions"
