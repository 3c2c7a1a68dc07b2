"""A disk's content at one instant.

qcow2   a snapshot inside the file: QEMU makes it where it runs, qemu-img where not
raw     a copy in the snapshot's folder that shares the volume's blocks (reflink); where the file
        system can't do that, there is none
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from vmkernel.host.files import (
    create_file,
    is_regular,
    reflink,
    remove,
    rename_durably,
    status,
    sync_file,
)
from vmkernel.model import DiskSpec, ErrorCode, MicaError, VmSpec, VolumeFormat
from vmkernel.qemu.disk_snapshots import delete_disk_snapshot, take_disk_snapshots
from vmkernel.storage.ports import Storage
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.store.snapshot_records import DiskRecord, SnapshotRecord, folder_of

__all__ = [
    "check_kept",
    "describe_disks",
    "forget_disks",
    "keep_disks",
    "restore_disks",
]


def describe_disks(storage: Storage, spec: VmSpec) -> tuple[DiskRecord, ...]:
    """What a snapshot of these disks will hold; MicaError if one can't be kept."""
    found = []
    for index, disk in enumerate(spec.disks):
        if disk.read_only:
            continue
        volume = storage.volume(disk.volume)
        file = None
        if volume.format is VolumeFormat.RAW:
            file = f"{disk.key}.raw"
            if volume.datastore != spec.datastore:
                raise _no_raw(index, disk, "is on another datastore than the VM")
        found.append(DiskRecord(volume=volume.id, format=volume.format, file=file))
    return tuple(found)


async def keep_disks(machine: Machine, record: SnapshotRecord) -> None:
    """Keep the disks of a VM that is paused or off; all at one instant."""
    folder = folder_of(machine.folder, record.id)
    await asyncio.to_thread(_copy_raws, machine, record, folder)
    inside = [disk for disk in record.disks if disk.file is None]
    if machine.connected:
        keys = [_key(record.spec.disks, disk.volume) for disk in inside]
        await take_disk_snapshots(machine.qmp(), [key for key in keys if key], record.tag)
        return
    for disk in inside:
        volume = machine.host.storage.volume(disk.volume)
        await machine.host.storage.qemu_img.snapshot("-c", record.tag, volume.path)


async def check_kept(machine: Machine, record: SnapshotRecord) -> None:
    """Verify that every disk still has what the snapshot kept, before anything is changed; of a VM
    whose QEMU may run.
    """
    for disk in record.disks:
        volume = machine.host.storage.volume(disk.volume)
        there = volume.format is disk.format
        if there and disk.file is not None:
            kept = folder_of(machine.folder, record.id) / disk.file
            there = await asyncio.to_thread(is_regular, kept)
        elif there:
            tags = await machine.host.storage.qemu_img.snapshots(volume.path)
            there = record.tag in tags
        if not there:
            raise MicaError(
                ErrorCode.CONFLICT,
                f"Volume {disk.volume} no longer holds snapshot {record.id} of VM {machine.vm_id}:"
                " delete the snapshot.",
            )


async def restore_disks(machine: Machine, record: SnapshotRecord) -> None:
    """Restore the kept content of the disks of a VM that is off; repeatable after
    an interruption.
    """
    for disk in record.disks:
        volume = machine.host.storage.volume(disk.volume)
        if disk.file is None:
            image = machine.host.storage.qemu_img
            # The checkpoints of backups: what they recorded would be wrong, and qemu-img refuses
            # to go back beside them.
            for bitmap in await image.bitmaps(volume.path):
                await image.remove_bitmap(bitmap, volume.path)
            await image.snapshot("-a", record.tag, volume.path)
            await asyncio.to_thread(sync_file, volume.path)
        else:
            kept = folder_of(machine.folder, record.id) / disk.file
            await asyncio.to_thread(_restore_raw, kept, volume.path)


async def forget_disks(machine: Machine, record: SnapshotRecord) -> None:
    """Delete the snapshot inside the disks; it may be missing, as may volumes."""
    for disk in record.disks:
        if disk.file is not None:
            continue
        try:
            volume = machine.host.storage.volume(disk.volume)
        except MicaError as error:
            if error.problem.code is ErrorCode.NOT_FOUND:
                continue
            raise
        key = _key(machine.definition.spec.disks, disk.volume)
        if machine.connected and key is not None:
            await delete_disk_snapshot(machine.qmp(), key, record.tag)
            continue
        image = machine.host.storage.qemu_img
        if record.tag in await image.snapshots(volume.path):
            await image.snapshot("-d", record.tag, volume.path)


def _key(disks: Iterable[DiskSpec], volume: str) -> str | None:
    return next((disk.key for disk in disks if disk.volume == volume), None)


def _copy_raws(machine: Machine, record: SnapshotRecord, folder: Path) -> None:
    for disk in record.disks:
        if disk.file is None:
            continue
        path = folder / disk.file
        os.close(create_file(path))
        if not reflink(machine.host.storage.volume(disk.volume).path, path):
            index, spec = next(
                (i, d) for i, d in enumerate(record.spec.disks) if d.volume == disk.volume
            )
            raise _no_raw(index, spec, "is raw, and its datastore can't share blocks")
        sync_file(path)


def _restore_raw(kept: Path, target: Path) -> None:
    """Replace a volume's file by the kept copy, atomically."""
    new = target.with_name(f".{target.name}.revert")
    remove(new)
    old = status(target)
    fd = create_file(new)
    try:
        if not reflink(kept, new):
            remove(new)
            raise OSError(f"{target.name} can't share blocks any more")
        if old.st_uid != os.geteuid():
            os.fchown(fd, old.st_uid, old.st_gid)
        os.fchmod(fd, old.st_mode & 0o777)
        os.fsync(fd)
    finally:
        os.close(fd)
    rename_durably(new, target)


def _no_raw(index: int, disk: DiskSpec, why: str) -> MicaError:
    return MicaError.field(
        f"/spec/disks/{index}/volume",
        f"Volume {disk.volume} {why}: convert it to qcow2 to take snapshots.",
        ErrorCode.UNSUPPORTED,
    )
