"""A datastore on a whole disk: GPT, one partition of Mica's own type, XFS or ext4.

          check()                                         create()
disk ---> is it there, writable, not the stick, unused?
      |-> bears a Mica datastore partition --------------> mount, read the marker: adopted
      |-> blank -----------------------------------------> partition, format, mount, marker
      |-> anything else: wipe_serial equals the id? -----> wipe, then as blank
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

from vmkernel.host import disk_tools
from vmkernel.host.blkid import Signature, probe
from vmkernel.host.block import STATE_TYPE_GUID, BlockDisk, BlockPartition, BlockTree
from vmkernel.host.errors import HostError, from_os_error
from vmkernel.host.files import make_directory
from vmkernel.host.gpt import GptPartition
from vmkernel.host.mounts import mount, mounts, unmount
from vmkernel.host.runner import Runner
from vmkernel.model import DatastoreKind, DatastoreSpec, ErrorCode, Filesystem, MicaError
from vmkernel.state import StoredDatastore
from vmkernel.storage.drivers.base import Attached, Report
from vmkernel.storage.errors import DatastoreMissing, StorageError
from vmkernel.storage.layout import Layout
from vmkernel.storage.records import RecordError

__all__ = ["DATASTORE_TYPE", "LocalDriver"]

DATASTORE_TYPE = "6d696361-6461-4461-a5e5-1b7c8d9e0f21"
"""The GPT type of a datastore's partition. Never changes: disks in the field bear it."""
MIN_DISK_BYTES = 512 << 20
"""mkfs.xfs refuses less than 300 MB."""
_PARTITION_NAME = "mica-datastore"
_MOUNTABLE = {item.value for item in Filesystem}


class LocalDriver:
    """Mounts below `mount_root`; `stick` tells the name of the disk that is never taken."""

    def __init__(
        self,
        runner: Runner,
        tree: BlockTree,
        mount_root: Path,
        stick: Callable[[], str | None],
    ) -> None:
        self._runner = runner
        self._tree = tree
        self._mount_root = mount_root
        self._stick = stick
        self._lock = asyncio.Lock()

    @property
    def kind(self) -> DatastoreKind:
        """The kind that it serves."""
        return DatastoreKind.LOCAL

    async def check(self, spec: DatastoreSpec, wipe_serial: str | None) -> None:
        """Refuse at once what `create` would refuse."""
        if spec.path is not None:
            raise MicaError.field("/spec/path", "A datastore on a disk has no path.")
        disk = await self._usable_disk(spec)
        if await self._adoptable(disk) is None:
            await self._confirm_wipe(disk, wipe_serial)
        elif wipe_serial is not None and wipe_serial != disk.id:
            raise _wrong_serial(disk)

    async def create(
        self, datastore_id: str, spec: DatastoreSpec, wipe_serial: str | None, report: Report
    ) -> Attached:
        """Adopt the datastore on the disk; or make one, wiping the disk where that is confirmed.

        A datastore that is there is adopted even with `wipe_serial`: to lose one, its disk must be
        wiped elsewhere.
        """
        async with self._lock:
            disk = await self._usable_disk(spec)
            found = await self._adoptable(disk)
            if found is None:
                await self._confirm_wipe(disk, wipe_serial)
                await self._format(disk, spec.filesystem, report)
                found = await self._adoptable(await self._usable_disk(spec))
                if found is None:
                    raise HostError(f"The new partition on disk {disk.id} is not there.")
            partition, partition_uuid = found
            report("mount")
            return await self._open(datastore_id, partition, partition_uuid, expected=None)

    async def attach(self, stored: StoredDatastore) -> Attached:
        """Find the partition again, on whatever disk it is now, and mount it."""
        found = await asyncio.to_thread(self._find, stored)
        if found is None:
            raise DatastoreMissing(
                f"The disk {stored.spec.disk} of datastore {stored.id} is not there."
            )
        partition, partition_uuid = found
        return await self._open(stored.id, partition, partition_uuid, expected=stored.uuid)

    async def detach(self, datastore_id: str, *, force: bool = False) -> None:
        """Unmount."""
        target = self._mount_root / datastore_id
        try:
            if await asyncio.to_thread(_is_mounted, target):
                await asyncio.to_thread(unmount, target, lazily=force)
            await asyncio.to_thread(_remove_directory, target)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise StorageError(
                    ErrorCode.IN_USE, f"Something is still open on datastore {datastore_id}."
                ) from error
            raise from_os_error(error, f"{datastore_id} can't be unmounted") from error

    async def present(self, stored: StoredDatastore) -> bool:
        """True while the mounted partition's disk is there."""
        target = self._mount_root / stored.id
        mounted = [entry for entry in mounts() if entry.target == target]
        if not mounted:
            return await asyncio.to_thread(self._find, stored) is not None
        return Path("/sys/dev/block", mounted[-1].device_number).exists()

    # --- steps --------------------------------------------------------------------------------

    async def _usable_disk(self, spec: DatastoreSpec) -> BlockDisk:
        if spec.disk is None:
            raise MicaError.field("/spec/disk", "A local datastore needs the id of a disk.")
        disks = await asyncio.to_thread(self._tree.disks)
        disk = next((disk for disk in disks if disk.id == spec.disk), None)
        if disk is None:
            raise MicaError.field("/spec/disk", f"There is no disk {spec.disk}.")
        table = await asyncio.to_thread(self._table, disk)
        bears_state = any(entry.type_guid == STATE_TYPE_GUID for entry in table)
        if disk.name == self._stick() or bears_state:
            raise MicaError.field("/spec/disk", "The boot stick can't be a datastore.")
        if disk.read_only:
            raise MicaError.field("/spec/disk", f"Disk {disk.id} can't be written.")
        if disk.size_bytes < MIN_DISK_BYTES:
            raise MicaError.field(
                "/spec/disk", f"Disk {disk.id} is smaller than {MIN_DISK_BYTES >> 20} MiB."
            )
        used = disk.holders or any(entry.device_number in disk.device_numbers for entry in mounts())
        if used:
            raise MicaError.field("/spec/disk", f"Disk {disk.id} is in use.", ErrorCode.IN_USE)
        return disk

    async def _confirm_wipe(self, disk: BlockDisk, wipe_serial: str | None) -> None:
        if wipe_serial is not None and wipe_serial != disk.id:
            raise _wrong_serial(disk)
        signature = await probe(self._runner, disk.path)
        if signature.blank and not disk.partitions:
            return
        if wipe_serial is None:
            raise MicaError.field(
                "/wipe_serial",
                f"Disk {disk.id} holds {_what(signature)}; to wipe it, give its id as wipe_serial.",
                ErrorCode.WIPE_NOT_CONFIRMED,
            )

    async def _format(self, disk: BlockDisk, filesystem: Filesystem, report: Report) -> None:
        device = disk.path
        disk_tools.hold_exclusively(device)
        report("wipe")
        for partition in disk.partitions:
            await disk_tools.wipe(self._runner, partition.path)
        await disk_tools.wipe(self._runner, device)
        report("partition")
        await disk_tools.make_one_partition(
            self._runner, device, type_guid=DATASTORE_TYPE, name=_PARTITION_NAME
        )
        node: Path | None = None

        def appeared() -> bool:
            nonlocal node
            for other in self._tree.disks():
                if other.name == disk.name and (found := self._partition(other)) is not None:
                    node = found[0].path
            return node is not None and node.exists()

        await disk_tools.wait_for(appeared, what=f"The new partition of disk {disk.id}")
        assert node is not None
        report("format")
        if filesystem is Filesystem.XFS:
            await disk_tools.make_xfs(self._runner, node, label="mica")
        else:
            await disk_tools.make_ext4(self._runner, node, label="mica")

    async def _open(
        self,
        datastore_id: str,
        partition: BlockPartition,
        partition_uuid: str,
        *,
        expected: str | None,
    ) -> Attached:
        signature = await probe(self._runner, partition.path)
        if signature.filesystem not in _MOUNTABLE:
            raise StorageError(
                ErrorCode.CONFLICT,
                f"The datastore partition {partition.name} holds {_what(signature)}, "
                "not XFS or ext4.",
            )
        target = self._mount_root / datastore_id
        try:
            marker_uuid = await asyncio.to_thread(
                _mount_and_open, partition.path, target, signature.filesystem, expected
            )
        except OSError as error:
            raise from_os_error(error, f"Datastore {datastore_id} can't be mounted") from error
        return Attached(
            root=target,
            uuid=marker_uuid,
            device=str(partition.path),
            filesystem=signature.filesystem,
            partition_uuid=partition_uuid,
        )

    async def _adoptable(self, disk: BlockDisk) -> tuple[BlockPartition, str] | None:
        """The datastore's partition, where it was formatted to the end."""
        found = await asyncio.to_thread(self._partition, disk)
        if found is None or (await probe(self._runner, found[0].path)).filesystem not in _MOUNTABLE:
            return None
        return found

    def _partition(self, disk: BlockDisk) -> tuple[BlockPartition, str] | None:
        """The datastore's partition on a disk and its unique GUID."""
        for entry in self._table(disk):
            if entry.type_guid == DATASTORE_TYPE:
                node = self._tree.partition_node(disk, entry.number)
                if node is not None:
                    return node, entry.unique_guid
        return None

    def _table(self, disk: BlockDisk) -> tuple[GptPartition, ...]:
        try:
            return self._tree.gpt(disk) or ()
        except OSError:
            return ()

    def _find(self, stored: StoredDatastore) -> tuple[BlockPartition, str] | None:
        for disk in self._tree.disks():
            found = self._partition(disk)
            if found is not None and found[1] == stored.partition_uuid:
                return found
        return None


def _what(signature: Signature) -> str:
    if signature.filesystem is not None:
        return f"{signature.filesystem} data"
    if signature.partition_table is not None:
        return f"a partition table ({signature.partition_table})"
    return "partitions"


def _wrong_serial(disk: BlockDisk) -> MicaError:
    return MicaError.field(
        "/wipe_serial",
        f"wipe_serial is not the id of disk {disk.id}.",
        ErrorCode.WIPE_NOT_CONFIRMED,
    )


def _is_mounted(target: Path) -> bool:
    return any(entry.target == target for entry in mounts())


def _mount_and_open(device: Path, target: Path, filesystem: str, expected: str | None) -> str:
    """Mount (unless an earlier vmkernel did) and open the tree; unmounted again on failure."""
    for folder in (target.parent, target):
        make_directory(folder)
    number = device.stat().st_rdev
    name = f"{os.major(number)}:{os.minor(number)}"
    mounted = [entry for entry in mounts() if entry.target == target]
    ours = bool(mounted) and mounted[-1].device_number == name
    if mounted and not ours:
        unmount(target, lazily=True)
    if not ours:
        try:
            mount(device, target, filesystem)
        except OSError:
            _remove_directory(target)
            raise
    try:
        layout = Layout(target)
        marker = layout.read_marker()
        if marker is None:
            if expected is not None or not layout.empty():
                raise StorageError(
                    ErrorCode.CONFLICT, f"{device} holds files, but no datastore marker."
                )
            marker = layout.initialise()
        if expected is not None and marker.uuid != expected:
            raise DatastoreMissing(f"{device} holds another datastore ({marker.uuid}).")
        layout.open()
    except BaseException as error:
        if not ours:
            unmount(target, lazily=True)
            _remove_directory(target)
        if isinstance(error, RecordError):
            raise StorageError(
                ErrorCode.CONFLICT, f"The datastore on {device}: {error}."
            ) from error
        raise
    return marker.uuid


def _remove_directory(target: Path) -> None:
    if target.is_dir():
        target.rmdir()
