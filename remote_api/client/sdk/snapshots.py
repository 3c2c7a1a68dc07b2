"""Snapshots of VMs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from remote_api.client.sdk.base import CREATE, Calls
from remote_api.client.sdk.queries import SnapshotListQuery
from remote_api.schema import (
    PageOf,
    SnapshotBody,
)
from vmkernel.model import Operation, Snapshot, SnapshotSpec

__all__ = ["SnapshotCalls"]


class SnapshotCalls(Calls):
    """Snapshots of VMs."""

    def snapshots(self, vm_id: str, **query: Unpack[SnapshotListQuery]) -> Iterator[Snapshot]:
        """The snapshots of a VM."""
        return self._all(f"/v1/vms/{vm_id}/snapshots", PageOf[Snapshot], query)

    def snapshot(self, vm_id: str, snapshot: str) -> Snapshot:
        """One snapshot."""
        return self.transport.send("GET", f"/v1/vms/{vm_id}/snapshots/{snapshot}").read(Snapshot)

    def create_snapshot(
        self, vm_id: str, snapshot: str, spec: SnapshotSpec | None = None
    ) -> Operation:
        """Take a snapshot."""
        return self._operation(
            "PUT",
            f"/v1/vms/{vm_id}/snapshots/{snapshot}",
            body=SnapshotBody(spec=spec or SnapshotSpec()),
            headers=CREATE,
        )

    def revert_to_snapshot(
        self, vm_id: str, snapshot: str, *, start: bool | None = None
    ) -> Operation:
        """Revert a VM to a snapshot; `start` is whether it runs afterwards."""
        return self._operation("POST", f"/v1/vms/{vm_id}/snapshots/{snapshot}/revert", start=start)

    def delete_snapshot(self, vm_id: str, snapshot: str) -> Operation:
        """Delete a snapshot."""
        return self._operation("DELETE", f"/v1/vms/{vm_id}/snapshots/{snapshot}")
