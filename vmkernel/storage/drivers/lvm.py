"""A datastore that concatenates several disks: an LVM2 volume group with one volume.

disk -- GPT, one partition of Mica's member type --+ disk -- GPT, one partition of Mica's member
type --+-- group mica-… -- volume -- XFS or ext4

It has no redundancy: if a disk is missing, the datastore is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from vmkernel.host import disk_tools
from vmkernel.host.block import BlockDisk
from vmkernel.host.errors import from_os_error
from vmkernel.host.grow import grow_filesystem
from vmkernel.host.lvm import GROUP_PREFIX, Lvm, volume_node
from vmkernel.model import (
    DatastoreKind,
    DatastoreMember,
    DatastoreSpec,
    ErrorCode,
    MemberState,
    MicaError,
)
from vmkernel.state import StoredDatastore
from vmkernel.storage.drivers.base import (
    Attached,
    CreateOptions,
    DatastoreDriver,
    Observation,
    Report,
    as_found,
)
from vmkernel.storage.drivers.disk_selection import MEMBER_NAME, MEMBER_TYPE, DiskChoice, Found
from vmkernel.storage.drivers.mounting import Mounting
from vmkernel.storage.errors import DatastoreMissing

__all__ = ["LvmDriver"]

_log = logging.getLogger(__name__)


class LvmDriver(DatastoreDriver):
    """Volume groups that Mica made."""

    kind = DatastoreKind.LVM

    def __init__(self, choice: DiskChoice, mounting: Mounting, lvm: Lvm) -> None:
        self._choice = choice
        self._mounting = mounting
        self._lvm = lvm
        self._attached: dict[str, tuple[Found, ...]] = {}

    async def check(self, spec: DatastoreSpec, options: CreateOptions) -> None:
        """Refuse at once what `create` would refuse."""
        async with self._choice.lock:
            await self._plan(spec, options)

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, options: CreateOptions, report: Report
    ) -> Attached:
        """Adopt the group on the disks, or make one on them."""
        async with self._choice.lock:
            disks, group = await self._plan(spec, options)
            if group is None:
                report("partition")
                group = await self._make(disks, spec, report)
            report("mount")
            attached, found = await self._open(datastore_id, group, expected=None)
            return replace(
                attached, spec=as_found(spec, filesystem=attached.filesystem, disks=found)
            )

    async def attach(self, stored: StoredDatastore) -> Attached:
        """Activate the volume, wherever the disks are now, and mount it.

        The disks count, not the spec: a crash may have happened between the two when one was added.
        """
        async with self._choice.lock:
            attached, disks = await self._open(stored.id, _group_of(stored), expected=stored.uuid)
            return replace(attached, spec=as_found(stored.spec, disks=disks))

    async def detach(self, stored: StoredDatastore, *, force: bool = False) -> None:
        """Unmount and take the volume away."""
        await self._mounting.close(stored.id, force=force)
        self._attached.pop(stored.id, None)
        if stored.backing is not None:
            await self._deactivate_quietly(stored.backing)

    async def present(self, stored: StoredDatastore) -> bool:
        """True while all the disks are there."""
        found = self._attached.get(stored.id, ())
        return bool(found) and await asyncio.to_thread(lambda: all(_there(item) for item in found))

    async def observe(self, stored: StoredDatastore) -> Observation:
        found = {item.disk.id: item for item in self._attached.get(stored.id, ())}
        members = []
        for disk in stored.spec.disks:
            item = found.get(disk)
            there = item is not None and _there(item)
            members.append(
                DatastoreMember(
                    disk=disk,
                    device=str(item.partition.path) if item is not None and there else None,
                    state=MemberState.ACTIVE if there else MemberState.MISSING,
                )
            )
        return Observation(members=tuple(members))

    def disks_of(self, spec: DatastoreSpec) -> tuple[str, ...]:
        return spec.disks

    def recognises(self, partition_type: str, filesystem: str | None) -> bool:
        """A physical volume in one of Mica's partitions."""
        return partition_type == MEMBER_TYPE and filesystem == "LVM2_member"

    def device_nodes(self, stored: StoredDatastore) -> tuple[str, ...]:
        return tuple(str(item.partition.path) for item in self._attached.get(stored.id, ()))

    async def grow(self, stored: StoredDatastore, attached: Attached, report: Report) -> None:
        """Grow the partitions, the volume, then the file system."""
        async with self._choice.lock:
            found = self._attached.get(stored.id, ())
            report("partition")
            for item in found:
                await self._choice.grow_partition(item)
            report("volume")
            await self._lvm.take_all_space(_group_of(stored), _nodes(found))
            report("filesystem")
            await self._grow_filesystem(stored, attached)

    async def add_disk(
        self, stored: StoredDatastore, attached: Attached, disk: str, options: CreateOptions
    ) -> DatastoreSpec:
        """Append a disk."""
        async with self._choice.lock:
            if disk in stored.spec.disks:
                raise MicaError.field(
                    "/disk", f"{disk} is a disk of datastore {stored.id} already."
                )
            new = await self._choice.usable(disk, "/disk")
            await self._choice.confirm((new,), options)
            fresh = await self._choice.partition_whole(new, MEMBER_TYPE, MEMBER_NAME)
            found = self._attached.get(stored.id, ())
            await self._lvm.extend(_group_of(stored), _nodes(found), fresh.partition.path)
            self._attached[stored.id] = (*found, fresh)
            await self._grow_filesystem(stored, attached)
            return msgspec.structs.replace(stored.spec, disks=(*stored.spec.disks, disk))

    # --- steps --------------------------------------------------------------------------------

    async def _plan(
        self, spec: DatastoreSpec, options: CreateOptions
    ) -> tuple[tuple[BlockDisk, ...], str | None]:
        """The disks, and the group to adopt; None if one is to be made."""
        if len(set(spec.disks)) < len(spec.disks):
            raise MicaError.field("/spec/disks", "A disk is named twice.")
        if not spec.disks:
            raise MicaError.field("/spec/disks", "Give the ids of the disks.")
        await self.release_strays()
        disks = [
            await self._choice.usable(name, f"/spec/disks/{place}")
            for place, name in enumerate(spec.disks)
        ]
        groups = {disk.id: await self._group_on(disk) for disk in disks}
        known = {group for group in groups.values() if group is not None}
        if len(known) == 1 and None not in groups.values():
            return tuple(disks), known.pop()
        if known:
            taken = min(disk for disk, group in groups.items() if group is not None)
            raise MicaError.field(
                "/spec/disks",
                f"Disk {taken} belongs to the datastore on volume group {groups[taken]}: give the"
                " disks of one group alone to adopt it, or wipe the disk first.",
                ErrorCode.CONFLICT,
            )
        if options.adopt:
            raise MicaError.field("/adopt", "The disks hold no datastore.", ErrorCode.CONFLICT)
        await self._choice.confirm(tuple(disks), options)
        return tuple(disks), None

    async def _group_on(self, disk: BlockDisk) -> str | None:
        found = await asyncio.to_thread(self._choice.partition, disk, MEMBER_TYPE)
        if found is None:
            return None
        volumes = await self._lvm.physical_volumes((found.partition.path,))
        mine = [pv for pv in volumes if pv.device == found.partition.path and pv.ours]
        return mine[0].group if mine else None

    async def _make(self, disks: Sequence[BlockDisk], spec: DatastoreSpec, report: Report) -> str:
        """Partition the disks, make a group and a volume on them and format it: its name.

        If that fails, no trace of a group is left on the disks.
        """
        group = f"{GROUP_PREFIX}{secrets.token_hex(4)}"
        founds: list[Found] = []
        try:
            for disk in disks:
                founds.append(await self._choice.partition_whole(disk, MEMBER_TYPE, MEMBER_NAME))
            report("group")
            await self._lvm.create(group, _nodes(founds))
            node = volume_node(group)
            await disk_tools.wait_for(node.exists, what=f"The volume of group {group}")
            report("format")
            await disk_tools.make_filesystem(
                self._choice.runner, node, spec.filesystem, label="mica"
            )
        except BaseException:
            await asyncio.shield(self._unmake(group, founds))
            raise
        return group

    async def _unmake(self, group: str, founds: Sequence[Found]) -> None:
        with contextlib.suppress(MicaError):
            await self._lvm.deactivate(group, _nodes(founds))
        for found in founds:
            with contextlib.suppress(MicaError):
                await disk_tools.wipe(self._choice.runner, found.partition.path)
                await disk_tools.wipe(self._choice.runner, found.disk.path)

    async def _open(
        self, datastore_id: str, group: str, *, expected: str | None
    ) -> tuple[Attached, tuple[str, ...]]:
        """The datastore, and the ids of the disks that it was found on. If that fails, the volume
        is removed again; lvm refuses that while something has it open."""
        founds, missing = await self._parts(group)
        if not founds or missing:
            raise DatastoreMissing(
                f"Disks of datastore {datastore_id} are missing: {len(founds)} of "
                f"{len(founds) + missing} are there."
            )
        node = volume_node(group)
        try:
            await self._lvm.activate(group, _nodes(founds))
            await disk_tools.wait_for(node.exists, what=f"The volume of group {group}")
            root, uuid, filesystem = await self._mounting.open_device(
                datastore_id, node, expected=expected
            )
        except BaseException:
            await asyncio.shield(self._deactivate_quietly(group))
            raise
        self._attached[datastore_id] = founds
        attached = Attached(
            root=root, uuid=uuid, device=str(node), filesystem=filesystem, backing=group
        )
        return attached, tuple(item.disk.id for item in founds)

    async def _parts(self, group: str) -> tuple[tuple[Found, ...], int]:
        """The group's partitions that are present, and how many are missing."""
        candidates = await asyncio.to_thread(self._choice.find, MEMBER_TYPE)
        volumes = await self._lvm.physical_volumes(_nodes(candidates))
        mine = [volume for volume in volumes if volume.group == group]
        nodes = {volume.device for volume in mine if volume.device is not None}
        founds = tuple(item for item in candidates if item.partition.path in nodes)
        return founds, len(mine) - len(founds)

    async def release_strays(self) -> None:
        """Remove Mica's volumes that belong to no datastore, as left by a crash."""
        candidates = await asyncio.to_thread(self._choice.find, MEMBER_TYPE)
        volumes = await self._lvm.physical_volumes(_nodes(candidates))
        for group in {volume.group for volume in volumes if volume.ours}:
            node = volume_node(group)
            used = {item for founds in self._attached.values() for item in _nodes(founds)}
            mine = [volume for volume in volumes if volume.group == group]
            stray = not any(volume.device in used for volume in mine)
            if stray and await asyncio.to_thread(node.exists):
                await self._deactivate_quietly(group)

    async def _deactivate_quietly(self, group: str) -> None:
        try:
            founds, _ = await self._parts(group)
            if founds:
                await self._lvm.deactivate(group, _nodes(founds))
        except MicaError as error:
            _log.warning("the volume group %s can't be deactivated: %s", group, error)

    async def _grow_filesystem(self, stored: StoredDatastore, attached: Attached) -> None:
        assert attached.filesystem is not None
        node = volume_node(_group_of(stored))
        try:
            await asyncio.to_thread(grow_filesystem, attached.root, node, attached.filesystem)
        except OSError as error:
            raise from_os_error(error, f"Datastore {stored.id} can't be grown") from error


def _group_of(stored: StoredDatastore) -> str:
    """The name of its volume group."""
    assert stored.backing is not None
    return stored.backing


def _nodes(founds: Sequence[Found]) -> tuple[Path, ...]:
    return tuple(item.partition.path for item in founds)


def _there(found: Found) -> bool:
    return Path("/sys/dev/block", found.partition.device_number).exists()
