"""A datastore on several disks that mirror each other: md RAID 1 or RAID 10, metadata 1.2.

disk -- GPT, one partition of Mica's member type --+
disk -- GPT, one partition of Mica's member type --+-- /dev/mdN -- XFS or ext4
                                        (spares) --+

An array is known by its UUID, whatever its disks and device node are called now. An incomplete one
is started after a while with the disks that are present. A disk that fails or is pulled is removed
from the array, so that a spare can replace it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from vmkernel.host import disk_tools
from vmkernel.host.block import BlockDisk
from vmkernel.host.errors import CommandError, HostError, from_os_error
from vmkernel.host.grow import grow_filesystem
from vmkernel.host.md import NAME_PREFIX, Mdadm, MdArray, MdMember, Superblock, arrays
from vmkernel.host.mounts import mounts
from vmkernel.model import DatastoreKind, DatastoreSpec, ErrorCode, MicaError, RaidLevel
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
from vmkernel.storage.drivers.raid_status import node_disks, observe_array
from vmkernel.storage.errors import DatastoreMissing, StorageError

__all__ = ["RaidDriver", "fresh_members"]

_log = logging.getLogger(__name__)
_LEAST_DISKS = {RaidLevel.RAID1: 2, RaidLevel.RAID10: 4}
_PATIENCE_S = 30.0
"""How long to wait for an incomplete array: disks appear one after the other."""
_HIGHEST_NUMBER = 127

Member = tuple[Found, Superblock]


class RaidDriver(DatastoreDriver):
    """Arrays that Mica made."""

    kind = DatastoreKind.RAID

    def __init__(self, choice: DiskChoice, mounting: Mounting, mdadm: Mdadm) -> None:
        self._choice = choice
        self._mounting = mounting
        self._mdadm = mdadm
        self._running: dict[str, str] = {}
        """The kernel's name of each attached datastore's array."""
        self._incomplete_since: dict[str, float] = {}

    async def check(self, spec: DatastoreSpec, options: CreateOptions) -> None:
        """Refuse at once what `create` would refuse."""
        async with self._choice.lock:
            await self._plan(spec, options)

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, options: CreateOptions, report: Report
    ) -> Attached:
        """Adopt the array of which the disks are members, or make one on them."""
        async with self._choice.lock:
            disks, spares, uuid = await self._plan(spec, options)
            if uuid is not None:
                report("assemble")
                name = await self._assemble(uuid, datastore_id, patient=False)
            else:
                report("partition")
                uuid, name = await self._make(disks, spares, spec, report)
            report("mount")
            attached = await self._open(datastore_id, name, uuid, expected=None)
            try:
                return replace(attached, spec=await self._found_spec(spec, attached, name))
            except BaseException:
                await asyncio.shield(self._close(datastore_id, uuid, force=True))
                raise

    async def attach(self, stored: StoredDatastore) -> Attached:
        """Start the array, wherever its disks are now, and mount it."""
        assert stored.backing is not None
        async with self._choice.lock:
            name = await self._assemble(stored.backing, stored.id, patient=True)
            return await self._open(stored.id, name, stored.backing, expected=stored.uuid)

    async def detach(self, stored: StoredDatastore, *, force: bool = False) -> None:
        """Unmount and stop the array."""
        await self._close(stored.id, stored.backing, force=force)

    async def present(self, stored: StoredDatastore) -> bool:
        """True while a disk with all the data is present, however many are missing."""
        array = await self._array(stored.id)
        if array is None:
            return False
        whole = [m for m in array.members if m.present and "in_sync" in m.states]
        needed = 1 if array.level == RaidLevel.RAID1 else array.raid_disks // 2
        return array.running and len(whole) >= needed

    async def observe(self, stored: StoredDatastore) -> Observation:
        """The state of the array and its members; missing members are removed from it."""
        array = await self._array(stored.id)
        if array is None:
            return Observation()
        disks = await asyncio.to_thread(self._choice.tree.disks)
        await self._tidy(stored, array, disks)
        return observe_array(array, stored.spec, disks)

    def disks_of(self, spec: DatastoreSpec) -> tuple[str, ...]:
        """The disks and the spares."""
        return (*spec.disks, *spec.spares)

    def recognises(self, partition_type: str, filesystem: str | None) -> bool:
        """A member of an array in one of Mica's partitions."""
        return partition_type == MEMBER_TYPE and filesystem == "linux_raid_member"

    def device_nodes(self, stored: StoredDatastore) -> tuple[str, ...]:
        """The members' partitions."""
        name = self._running.get(stored.id)
        found = next((item for item in arrays() if item.name == name), None)
        return tuple(f"/dev/{member.device}" for member in found.members) if found else ()

    async def grow(self, stored: StoredDatastore, attached: Attached, report: Report) -> None:
        """Grow the members' partitions, the array, then the file system."""
        async with self._choice.lock:
            array = await self._needed(stored)
            report("partition")
            for found, _ in await self._members(stored.backing):
                await self._choice.grow_partition(found)
            report("array")
            await self._mdadm.take_all_space(array.path)
            report("filesystem")
            assert attached.filesystem is not None
            try:
                await asyncio.to_thread(
                    grow_filesystem, attached.root, array.path, attached.filesystem
                )
            except OSError as error:
                raise from_os_error(error, f"Datastore {stored.id} can't be grown") from error

    async def add_disk(
        self, stored: StoredDatastore, attached: Attached, disk: str, options: CreateOptions
    ) -> DatastoreSpec:
        """Add a spare; if the array is degraded, its rebuild starts at once."""
        del attached
        async with self._choice.lock:
            array = await self._needed(stored)
            spec = stored.spec
            if disk in (*spec.disks, *spec.spares):
                raise MicaError.field(
                    "/disk", f"{disk} is a disk of datastore {stored.id} already."
                )
            if await self._node_in(array, disk) is None:
                fresh = await self._fresh(stored, disk, options, "/disk")
                await self._mdadm.add(array.path, fresh.partition.path)
            return msgspec.structs.replace(spec, spares=(*spec.spares, disk))

    async def replace_disk(
        self,
        stored: StoredDatastore,
        attached: Attached,
        old: str,
        new: str,
        options: CreateOptions,
    ) -> DatastoreSpec:
        """Fill the new disk from the old one if that still works, else from the others."""
        del attached
        spec = stored.spec
        async with self._choice.lock:
            array = await self._needed(stored)
            if old not in spec.disks:
                raise MicaError.field("/old", f"{old} is not a disk of datastore {stored.id}.")
            if new in spec.disks:
                raise MicaError.field("/new", f"{new} is in use in datastore {stored.id}.")
            going = await self._node_in(array, old)
            coming = await self._node_in(array, new)
            if coming is not None:  # a spare, or taken in by an earlier try
                new_node = Path("/dev") / coming.device
            else:
                fresh = await self._fresh(stored, new, options, "/new")
                new_node = fresh.partition.path
                await self._mdadm.add(array.path, new_node)
            if going is not None and going.present and "in_sync" in going.states:
                with contextlib.suppress(CommandError):  # it was taken in as a spare already
                    await self._mdadm.replace(array.path, Path("/dev") / going.device, new_node)
            elif going is not None:
                await self._mdadm.drop(
                    array.path, Path("/dev") / going.device if going.present else "detached"
                )
            return msgspec.structs.replace(
                spec,
                disks=tuple(new if name == old else name for name in spec.disks),
                spares=tuple(name for name in spec.spares if name != new),
            )

    # --- planning -----------------------------------------------------------------------------

    async def _plan(
        self, spec: DatastoreSpec, options: CreateOptions
    ) -> tuple[tuple[BlockDisk, ...], tuple[BlockDisk, ...], str | None]:
        """The disks, the spares, and the UUID of the array to adopt; None if one is to be made."""
        _refuse_twice(spec)
        await self.release_strays()
        disks = [
            await self._choice.usable(name, f"/spec/disks/{place}")
            for place, name in enumerate(spec.disks)
        ]
        spares = [
            await self._choice.usable(name, f"/spec/spares/{place}")
            for place, name in enumerate(spec.spares)
        ]
        everything = (*disks, *spares)
        members = [(disk, await self._superblock(disk)) for disk in everything]
        uuids = {mark.uuid for _, mark in members if mark is not None and mark.ours}
        if len(uuids) == 1 and all(mark is not None for _, mark in members):
            return tuple(disks), tuple(spares), uuids.pop()
        for disk, mark in members:
            if mark is not None and mark.ours:
                raise MicaError.field(
                    "/spec/disks",
                    f"Disk {disk.id} belongs to the datastore on array {mark.name}: give the disks"
                    " of one array alone to adopt it, or wipe the disk first.",
                    ErrorCode.CONFLICT,
                )
        if options.adopt:
            raise MicaError.field("/adopt", "The disks hold no datastore.", ErrorCode.CONFLICT)
        least = _LEAST_DISKS[spec.raid_level]
        if len(disks) < least:
            raise MicaError.field(
                "/spec/disks", f"{spec.raid_level.value} needs at least {least} disks."
            )
        await self._choice.confirm(everything, options)
        return tuple(disks), tuple(spares), None

    async def _fresh(
        self, stored: StoredDatastore, disk_id: str, options: CreateOptions, pointer: str
    ) -> Found:
        """A partitioned disk, ready to become a member."""
        if disk_id in (*stored.spec.disks, *stored.spec.spares):
            raise MicaError.field(pointer, f"{disk_id} is a disk of datastore {stored.id} already.")
        disk = await self._choice.usable(disk_id, pointer)
        await self._choice.confirm((disk,), options)
        least = min(
            (found.partition.size_bytes for found, _ in await self._members(stored.backing)),
            default=0,
        )
        if disk.size_bytes < least:
            raise MicaError.field(
                pointer, f"Disk {disk_id} is smaller than the others ({least} bytes are needed)."
            )
        return await self._choice.partition_whole(disk, MEMBER_TYPE, MEMBER_NAME)

    # --- arrays -------------------------------------------------------------------------------

    async def _make(
        self,
        disks: Sequence[BlockDisk],
        spares: Sequence[BlockDisk],
        spec: DatastoreSpec,
        report: Report,
    ) -> tuple[str, str]:
        """Partition the disks, start an array on them, format it: its UUID and name.

        If that fails, no trace of an array is left on the disks.
        """
        founds: list[Found] = []
        device = await asyncio.to_thread(_free_device)
        try:
            for disk in (*disks, *spares):
                founds.append(await self._choice.partition_whole(disk, MEMBER_TYPE, MEMBER_NAME))
            nodes = [found.partition.path for found in founds]
            report("array")
            await self._mdadm.create(
                device,
                name=f"{NAME_PREFIX}{secrets.token_hex(4)}",
                level=spec.raid_level.value.removeprefix("raid"),
                disks=nodes[: len(disks)],
                spares=nodes[len(disks) :],
            )
            await disk_tools.wait_for(device.exists, what=f"The array {device.name}")
            identity = await self._mdadm.identity(device)
            if identity is None:
                raise HostError(f"The array {device.name} has no name.")
            report("format")
            await disk_tools.make_filesystem(
                self._choice.runner, device, spec.filesystem, label="mica"
            )
        except BaseException:
            await asyncio.shield(self._unmake(device, founds))
            raise
        return identity.uuid, device.name

    async def _unmake(self, device: Path, founds: Sequence[Found]) -> None:
        await self._stop_quietly(device.name)
        for found in founds:
            with contextlib.suppress(MicaError):
                await self._mdadm.forget(found.partition.path)
                await disk_tools.wipe(self._choice.runner, found.partition.path)
                await disk_tools.wipe(self._choice.runner, found.disk.path)

    async def _assemble(self, uuid: str, datastore_id: str, *, patient: bool) -> str:
        """The kernel's name of the running array with this UUID; one that was started for this
        and does not run as it should is ended again."""
        for array in await asyncio.to_thread(arrays):
            identity = await self._mdadm.identity(array.path)
            if identity is None or identity.uuid != uuid:
                continue
            if array.running:
                return array.name
            await self._stop_quietly(array.name)
        members = fresh_members(await self._members(uuid))
        if not members:
            raise DatastoreMissing(f"No disk of datastore {datastore_id} is there.")
        device = await asyncio.to_thread(_free_device)
        try:
            await self._start(device, uuid, members, datastore_id, patient=patient)
        except BaseException:
            await asyncio.shield(self._stop_quietly(device.name))
            raise
        self._incomplete_since.pop(uuid, None)
        return device.name

    async def _start(
        self,
        device: Path,
        uuid: str,
        members: Sequence[Member],
        datastore_id: str,
        *,
        patient: bool,
    ) -> None:
        nodes = [found.partition.path for found, _ in members]
        try:
            await self._mdadm.assemble(device, uuid, nodes, degraded=False)
        except CommandError as error:
            _log.warning("datastore %s: %s (%s)", datastore_id, error, error.output)
        if await self._runs(device):
            return
        await self._stop_quietly(device.name)
        since = self._incomplete_since.setdefault(uuid, time.monotonic())
        wanted = members[0][1].devices
        if patient and time.monotonic() - since < _PATIENCE_S:
            raise DatastoreMissing(
                f"Datastore {datastore_id} waits for its disks: {len(nodes)} of {wanted} are there."
            )
        await self._mdadm.assemble(device, uuid, nodes, degraded=True)
        if not await self._runs(device):
            raise DatastoreMissing(
                f"Too few disks of datastore {datastore_id} are there: {len(nodes)} of {wanted}."
            )
        _log.warning("array %s started with %d of %d disks", device.name, len(nodes), wanted)

    async def _close(self, datastore_id: str, uuid: str | None, *, force: bool) -> None:
        """Unmount, and end the array, also one that a failed try has left running."""
        await self._mounting.close(datastore_id, force=force)
        name = self._running.pop(datastore_id, None) or await self._name_of(uuid)
        if name is not None:
            await self._stop_quietly(name)

    async def _name_of(self, uuid: str | None) -> str | None:
        for array in await asyncio.to_thread(arrays) if uuid is not None else ():
            identity = await self._mdadm.identity(array.path)
            if identity is not None and identity.uuid == uuid:
                return array.name
        return None

    async def _runs(self, device: Path) -> bool:
        found = await asyncio.to_thread(arrays)
        return any(item.name == device.name and item.running for item in found)

    async def _open(
        self, datastore_id: str, name: str, uuid: str, *, expected: str | None
    ) -> Attached:
        """Mount what is on an array. If that fails, the array is stopped; the kernel refuses
        that while something has it open."""
        device = Path("/dev") / name
        try:
            root, marker, filesystem = await self._mounting.open_device(
                datastore_id, device, expected=expected
            )
        except BaseException:
            await asyncio.shield(self._stop_quietly(name))
            raise
        self._running[datastore_id] = name
        return Attached(
            root=root,
            uuid=marker,
            device=str(device),
            filesystem=filesystem,
            backing=uuid,
        )

    async def _found_spec(
        self, spec: DatastoreSpec, attached: Attached, name: str
    ) -> DatastoreSpec:
        """The spec, corrected to the running array."""
        array = next((item for item in await asyncio.to_thread(arrays) if item.name == name), None)
        if array is None:
            return as_found(spec, filesystem=attached.filesystem)
        nodes = node_disks(await asyncio.to_thread(self._choice.tree.disks))
        disks = {nodes[m.device] for m in array.members if m.device in nodes}
        spec = as_found(spec, filesystem=attached.filesystem, disks=sorted(disks))
        level = next((known for known in RaidLevel if known.value == array.level), None)
        return spec if level is None else msgspec.structs.replace(spec, raid_level=level)

    async def _tidy(
        self, stored: StoredDatastore, array: MdArray, disks: Sequence[BlockDisk]
    ) -> None:
        """Remove missing and replaced disks."""
        nodes = node_disks(disks)
        wanted = {*stored.spec.disks, *stored.spec.spares}
        for member in array.members:
            gone = not member.present
            replaced = "faulty" in member.states and nodes.get(member.device) not in wanted
            if not gone and not replaced:
                continue
            node = Path("/dev") / member.device
            with contextlib.suppress(MicaError):
                await self._mdadm.drop(array.path, "detached" if gone else node)
                if replaced and not gone:
                    await self._mdadm.forget(node)

    async def release_strays(self) -> None:
        """Stop Mica's arrays that belong to no datastore, as left by a crash."""
        used = {entry.source for entry in mounts()}
        for array in await asyncio.to_thread(arrays):
            if array.name in self._running.values() or str(array.path) in used:
                continue
            identity = await self._mdadm.identity(array.path)
            if identity is not None and identity.ours:
                await self._stop_quietly(array.name)

    async def _stop_quietly(self, name: str) -> None:
        if not Path("/sys/block", name, "md").exists():
            return
        try:
            await self._mdadm.stop(Path("/dev") / name)
        except MicaError as error:
            _log.warning("the array %s can't be ended: %s", name, error)

    async def _members(self, uuid: str | None) -> list[Member]:
        """The partitions with this array's superblock."""
        found = []
        for candidate in await asyncio.to_thread(self._choice.find, MEMBER_TYPE):
            mark = await self._mdadm.superblock(candidate.partition.path)
            if mark is not None and mark.uuid == uuid:
                found.append((candidate, mark))
        return found

    async def _superblock(self, disk: BlockDisk) -> Superblock | None:
        found = await asyncio.to_thread(self._choice.partition, disk, MEMBER_TYPE)
        return None if found is None else await self._mdadm.superblock(found.partition.path)

    async def _array(self, datastore_id: str) -> MdArray | None:
        name = self._running.get(datastore_id)
        found = await asyncio.to_thread(arrays)
        return next((item for item in found if item.name == name), None)

    async def _node_in(self, array: MdArray, disk: str) -> MdMember | None:
        """The member of an array on a disk."""
        nodes = node_disks(await asyncio.to_thread(self._choice.tree.disks))
        return next((m for m in array.members if nodes.get(m.device) == disk), None)

    async def _needed(self, stored: StoredDatastore) -> MdArray:
        array = await self._array(stored.id)
        if array is None:
            raise StorageError(
                ErrorCode.UNAVAILABLE, f"The array of datastore {stored.id} is not running."
            )
        return array


def fresh_members(members: Sequence[Member]) -> list[Member]:
    """The members without those that were missing while the array was used: a disk that was pulled
    and put back has an old state. A power cut makes a difference of one.
    """
    newest = max((mark.events for _, mark in members), default=0)
    return [(found, mark) for found, mark in members if mark.events >= newest - 1]


def _refuse_twice(spec: DatastoreSpec) -> None:
    names = (*spec.disks, *spec.spares)
    for place, name in enumerate(names):
        if name in names[:place]:
            raise MicaError.field("/spec/disks", f"Disk {name} is named twice.")


def _free_device() -> Path:
    """An unused device node; blocks."""
    taken = {item.name for item in arrays()}
    for number in range(_HIGHEST_NUMBER, -1, -1):
        name = f"md{number}"
        if name not in taken and not Path("/dev", name).exists():
            return Path("/dev") / name
    for number in range(_HIGHEST_NUMBER, -1, -1):
        if f"md{number}" not in taken:
            return Path("/dev") / f"md{number}"
    raise HostError("There are too many RAID arrays.")
