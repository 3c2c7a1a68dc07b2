"""Adding a point to a chain: a backup session of the host is begun, read and ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable

from remote_api.client.backup.folder import BackupFolder, DiskPart, Point
from remote_api.client.errors import ClientError, ConflictError, RefusedError
from remote_api.client.sdk import Mica
from remote_api.schema import BackupBody
from vmkernel.model import Backup, Vm, VmState

__all__ = ["OnStep", "add_point"]

OnStep = Callable[[str], None]


def add_point(
    folder: BackupFolder, mica: Mica, vm_id: str, *, on_step: OnStep = lambda _: None
) -> tuple[int, Point]:
    """Add what changed since the last point, or everything if there is none or the host can't say
    what changed (`on_step` gets the reason).

    Raises ClientError, also if the VM ended while it was being backed up: the point that was
    complete by then stays.
    """
    try:
        with folder.changing():
            return _add(folder, mica, vm_id, on_step)
    except OSError as error:
        raise ConflictError(f"{folder.path} can't be written: {error.strerror or error}") from error


def _add(folder: BackupFolder, mica: Mica, vm_id: str, on_step: OnStep) -> tuple[int, Point]:
    chain = folder.points()
    last = chain[max(chain)] if chain else None
    if last is not None and last.vm != vm_id:
        raise ConflictError(
            f"{folder.path} contains backups of VM {last.vm}; use another folder for VM {vm_id}"
        )
    number = max(chain, default=0) + 1
    checkpoint = f"b{number}-{os.urandom(4).hex()}"
    before = mica.vm(vm_id)
    backup, since = _begin(mica, vm_id, checkpoint, last, on_step)
    try:
        saved = folder.keep_vm(number, mica.backup_vm(backup))
        disks = tuple(
            _copy_disk(folder, mica, backup, number, index, on_step)
            for index in range(len(backup.disks))
        )
        point = Point(
            vm=vm_id,
            created_at=backup.created_at,
            checkpoint=checkpoint,
            since=since,
            quiet=backup.quiet,
            disks=disks,
            saved=saved,
        )
        folder.keep(number, point)
    except BaseException:
        with contextlib.suppress(RefusedError):  # it may have ended by itself
            mica.end_backup(backup)
        with contextlib.suppress(RefusedError):
            mica.delete_checkpoint(vm_id, checkpoint)
        raise
    mica.end_backup(backup)
    _refuse_if_ended(before, mica.vm(vm_id), number)
    if since is not None:
        mica.delete_checkpoint(vm_id, since)
    return number, point


def _begin(
    mica: Mica, vm_id: str, checkpoint: str, last: Point | None, on_step: OnStep
) -> tuple[Backup, str | None]:
    since = None if last is None else last.checkpoint
    try:
        return mica.begin_backup(vm_id, BackupBody(checkpoint=checkpoint, since=since)), since
    except RefusedError as error:
        if not any(e.pointer == "/since" for e in error.problem.errors):
            raise
        on_step(f"full backup: {error.problem.detail}")
    return mica.begin_backup(vm_id, BackupBody(checkpoint=checkpoint)), None


def _copy_disk(
    folder: BackupFolder, mica: Mica, backup: Backup, number: int, index: int, on_step: OnStep
) -> DiskPart:
    disk = backup.disks[index]
    name = f"{number:04}-{disk.key}.raw"
    on_step(f"copying {disk.key} (volume {disk.volume})")
    extents = tuple(mica.backup_extents(backup, disk.key))
    digest = hashlib.sha256()
    with folder.create(name) as file:
        for extent in extents:
            if extent.zero:
                continue
            file.seek(extent.offset)
            for part in mica.read_backup(backup, disk.key, extent.offset, extent.length):
                file.write(part)
                digest.update(part)
        file.truncate(disk.size_bytes)
        file.flush()
        os.fsync(file.fileno())
    return DiskPart(
        key=disk.key,
        volume=disk.volume,
        size_bytes=disk.size_bytes,
        format=mica.volume(disk.volume).spec.format,
        file=name,
        extents=extents,
        sha256=digest.hexdigest(),
    )


def _refuse_if_ended(before: Vm, after: Vm, number: int) -> None:
    """A backup must never cost the VM's run unnoticed."""
    if before.status.state is VmState.RUNNING and after.status.state is VmState.CRASHED:
        raise ClientError(
            f"VM {after.id} crashed during the backup ({after.status.reason}); point {number} was"
            " complete by then and is kept"
        )
