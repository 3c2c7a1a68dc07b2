"""A datastore on a whole disk: GPT, one partition of Mica's own type, XFS or ext4.

          check()                                         create()
disk ---> is it there, writable, not the stick, unused?
      |-> bears a Mica datastore partition --------------> mount, read the marker: adopted
      |-> blank -----------------------------------------> partition, format, mount, marker
      |-> anything else: wipe_serials name its id? ------> wipe, then as blank
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from vmkernel.host import disk_tools
from vmkernel.host.blkid import probe
from vmkernel.host.block import BlockDisk
from vmkernel.host.errors import from_os_error
from vmkernel.host.grow import grow_filesystem
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
from vmkernel.storage.drivers.disk_selection import DATASTORE_TYPE, DiskChoice, Found
from vmkernel.storage.drivers.mounting import MOUNTABLE, Mounting
from vmkernel.storage.errors import DatastoreMissing

__all__ = ["LocalDriver"]

_PARTITION_NAME = "mica-datastore"


class LocalDriver(DatastoreDriver):
    kind = DatastoreKind.LOCAL

    def __init__(self, choice: DiskChoice, mounting: Mounting) -> None:
        self._choice = choice
        self._mounting = mounting
        self._found: dict[str, Found] = {}

    async def check(self, spec: DatastoreSpec, options: CreateOptions) -> None:
        """Refuse at once what `create` would refuse."""
        disk = await self._choice.usable(_disk_of(spec), "/spec/disk")
        adoptable = await self._adoptable(disk)
        if adoptable is None:
            _refuse_to_make(options, disk)
            await self._choice.confirm((disk,), options)
        else:
            self._refuse_other_serials(disk, options)
            self._refuse_copies(adoptable)

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, options: CreateOptions, report: Report
    ) -> Attached:
        """Adopt the datastore on the disk, or make one, wiping the disk if that is confirmed.

        An existing datastore is adopted even with `wipe_serials`: destroying one needs a separate
        request to wipe its disk.
        """
        async with self._choice.lock:
            disk = await self._choice.usable(_disk_of(spec), "/spec/disk")
            found = await self._adoptable(disk)
            if found is not None:
                self._refuse_copies(found)
            else:
                _refuse_to_make(options, disk)
                await self._choice.confirm((disk,), options)
                report("partition")
                found = await self._choice.partition_whole(disk, DATASTORE_TYPE, _PARTITION_NAME)
                report("format")
                await disk_tools.make_filesystem(
                    self._choice.runner, found.partition.path, spec.filesystem, label="mica"
                )
            report("mount")
            attached = await self._open(datastore_id, found, expected=None)
            return replace(attached, spec=as_found(spec, filesystem=attached.filesystem))

    async def attach(self, stored: StoredDatastore) -> Attached:
        """Find the partition again, on whatever disk it is now, and mount it."""
        found = await asyncio.to_thread(self._find, stored)
        if found is None:
            raise DatastoreMissing(
                f"The disk {stored.spec.disk} of datastore {stored.id} is not there."
            )
        return await self._open(stored.id, found, expected=stored.uuid)

    async def detach(self, stored: StoredDatastore, *, force: bool = False) -> None:
        await self._mounting.close(stored.id, force=force)
        self._found.pop(stored.id, None)

    async def present(self, stored: StoredDatastore) -> bool:
        """True while the mounted partition's disk is there."""
        mounted = await asyncio.to_thread(self._mounting.mounted, stored.id)
        if mounted is None:
            return await asyncio.to_thread(self._find, stored) is not None
        return Path("/sys/dev/block", mounted.device_number).exists()

    async def observe(self, stored: StoredDatastore) -> Observation:
        found = self._found.get(stored.id)
        if found is None:
            return Observation()
        member = DatastoreMember(
            disk=found.disk.id, device=str(found.disk.path), state=MemberState.ACTIVE
        )
        return Observation(members=(member,))

    def disks_of(self, spec: DatastoreSpec) -> tuple[str, ...]:
        return (spec.disk,) if spec.disk else ()

    def recognises(self, partition_type: str, filesystem: str | None) -> bool:
        """A partition that was completely formatted."""
        return partition_type == DATASTORE_TYPE and filesystem in MOUNTABLE

    def device_nodes(self, stored: StoredDatastore) -> tuple[str, ...]:
        found = self._found.get(stored.id)
        return (str(found.partition.path),) if found is not None else ()

    async def grow(self, stored: StoredDatastore, attached: Attached, report: Report) -> None:
        """Grow the partition, then the file system."""
        async with self._choice.lock:
            found = await asyncio.to_thread(self._find, stored)
            if found is None or attached.filesystem is None:
                raise DatastoreMissing(f"The disk of datastore {stored.id} is not there.")
            report("partition")
            await self._choice.grow_partition(found)
            report("filesystem")
            try:
                await asyncio.to_thread(
                    grow_filesystem, attached.root, found.partition.path, attached.filesystem
                )
            except OSError as error:
                raise from_os_error(error, f"Datastore {stored.id} can't be grown") from error

    # --- steps --------------------------------------------------------------------------------

    async def _open(self, datastore_id: str, found: Found, *, expected: str | None) -> Attached:
        root, uuid, filesystem = await self._mounting.open_device(
            datastore_id, found.partition.path, expected=expected
        )
        self._found[datastore_id] = found
        return Attached(
            root=root,
            uuid=uuid,
            device=str(found.partition.path),
            filesystem=filesystem,
            backing=found.unique_guid,
        )

    async def _adoptable(self, disk: BlockDisk) -> Found | None:
        """The datastore's partition, if it was completely formatted."""
        found = await asyncio.to_thread(self._choice.partition, disk, DATASTORE_TYPE)
        if found is None:
            return None
        signature = await probe(self._choice.runner, found.partition.path)
        return found if signature.filesystem in MOUNTABLE else None

    def _find(self, stored: StoredDatastore) -> Found | None:
        """The datastore's partition.

        If a disk was copied block by block, two have it: the one on the disk that the spec names
        counts.
        """
        found = [
            item for item in self._choice.find(DATASTORE_TYPE) if item.unique_guid == stored.backing
        ]
        found.sort(key=lambda item: item.disk.id != stored.spec.disk)
        return found[0] if found else None

    def _refuse_copies(self, found: Found) -> None:
        """Two file systems with one UUID can't be mounted at the same time, nor
        told apart later.
        """
        for name, known in self._found.items():
            if known.unique_guid == found.unique_guid:
                raise MicaError.field(
                    "/spec/disk",
                    f"Disk {found.disk.id} is a copy of disk {known.disk.id} of datastore {name}.",
                    ErrorCode.ALREADY_EXISTS,
                )

    @staticmethod
    def _refuse_other_serials(disk: BlockDisk, options: CreateOptions) -> None:
        for place, serial in enumerate(options.wipe_serials):
            if serial != disk.id:
                raise MicaError.field(
                    f"/wipe_serials/{place}",
                    f"{serial} is not the id of disk {disk.id}.",
                    ErrorCode.WIPE_NOT_CONFIRMED,
                )


def _disk_of(spec: DatastoreSpec) -> str:
    if spec.disk is None:
        raise MicaError.field("/spec/disk", "A local datastore needs the id of a disk.")
    return spec.disk


def _refuse_to_make(options: CreateOptions, disk: BlockDisk) -> None:
    if options.adopt:
        raise MicaError.field("/adopt", f"Disk {disk.id} holds no datastore.", ErrorCode.CONFLICT)
