"""Backups of VMs, and writing data into volumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from remote_api.client.sdk.base import Calls
from remote_api.schema import BackupBody
from vmkernel.model import (
    Backup,
    BackupExtent,
    BackupExtents,
    BackupList,
    Checkpoint,
    CheckpointList,
)

__all__ = ["BackupCalls"]


class BackupCalls(Calls):
    """Backups."""

    def begin_backup(self, vm_id: str, body: BackupBody | None = None) -> Backup:
        """Start a backup: the disks stay readable as they are now, until `end_backup`."""
        answer = self.transport.send(
            "POST", f"/v1/vms/{vm_id}/backups", body=body or BackupBody(), wait_s=120.0
        )
        return answer.read(Backup)

    def backups(self, vm_id: str) -> tuple[Backup, ...]:
        """The open backups of a VM."""
        return self.transport.send("GET", f"/v1/vms/{vm_id}/backups").read(BackupList).items

    def end_backup(self, backup: Backup) -> None:
        """End a backup; its checkpoint stays."""
        self.transport.send("DELETE", _path(backup))

    def backup_vm(self, backup: Backup) -> bytes:
        """The VM of a backup without its disks: the JSON body that `create_saved_vm` takes."""
        return self.transport.send("GET", f"{_path(backup)}/vm").body

    def backup_extents(self, backup: Backup, disk: str) -> Iterator[BackupExtent]:
        """The extents of a disk to copy."""
        offset: int | None = 0
        while offset is not None:
            page = self.transport.send(
                "GET", f"{_path(backup)}/disks/{disk}/extents", parameters={"offset": offset}
            ).read(BackupExtents)
            yield from page.extents
            offset = page.next

    def read_backup(self, backup: Backup, disk: str, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of a part of a disk."""
        last = offset + length - 1
        with self.transport.download(
            f"{_path(backup)}/disks/{disk}/data", headers={"range": f"bytes={offset}-{last}"}
        ) as answer:
            yield from answer.parts

    def checkpoints(self, vm_id: str) -> tuple[Checkpoint, ...]:
        """The checkpoints of a VM."""
        return self.transport.send("GET", f"/v1/vms/{vm_id}/checkpoints").read(CheckpointList).items

    def delete_checkpoint(self, vm_id: str, checkpoint: str) -> None:
        """Delete a checkpoint."""
        self.transport.send("DELETE", f"/v1/vms/{vm_id}/checkpoints/{checkpoint}")

    def write_volume(
        self, volume_id: str, offset: int, length: int, parts: Iterable[bytes]
    ) -> None:
        """Write a part of a raw volume that no running VM uses; durable on return."""
        self.transport.send(
            "PATCH",
            f"/v1/volumes/{volume_id}/data",
            content=parts,
            headers={
                "content-length": str(length),
                "content-type": "application/octet-stream",
                "content-range": f"bytes {offset}-{offset + length - 1}/*",
            },
            wait_s=120.0,
        )


def _path(backup: Backup) -> str:
    return f"/v1/vms/{backup.vm}/backups/{backup.id}"
