"""Volumes."""

from __future__ import annotations

from collections.abc import Iterator

from remote_api.client.sdk.base import CREATE, MERGE_PATCH, Calls
from remote_api.schema import KeepVolumeBody, VolumeBody, VolumePage
from vmkernel.model import Allocation, CheckRepair, Operation, Volume, VolumeFormat, VolumeSpec

__all__ = ["StorageCalls"]


class StorageCalls(Calls):
    """Volumes."""

    def volumes(self, datastore: str | None = None) -> Iterator[Volume]:
        """All volumes."""
        return self._all("/v1/volumes", VolumePage, datastore=datastore)

    def volume(self, volume_id: str) -> Volume:
        """One volume."""
        return self.transport.send("GET", f"/v1/volumes/{volume_id}").read(Volume)

    def create_volume(self, volume_id: str, spec: VolumeSpec) -> Operation:
        """Make a volume."""
        return self._operation(
            "PUT", f"/v1/volumes/{volume_id}", body=VolumeBody(spec=spec), headers=CREATE
        )

    def keep_volume(self, volume_id: str, *together_with: str) -> Operation:
        """Let volumes of one datastore stay that were made with `delete_unless_used_s`, without a
        VM: all of them or none."""
        return self._operation(
            "POST",
            f"/v1/volumes/{volume_id}/keep",
            body=KeepVolumeBody(together_with=together_with),
        )

    def resize_volume(
        self, volume_id: str, size_bytes: int, *, allow_shrink: bool = False
    ) -> Operation:
        """Change a volume's size."""
        return self._operation(
            "PATCH",
            f"/v1/volumes/{volume_id}",
            body={"spec": {"size_bytes": size_bytes}},
            headers=MERGE_PATCH,
            allow_shrink=allow_shrink,
        )

    def move_volume(
        self,
        volume_id: str,
        *,
        datastore: str | None = None,
        volume_format: VolumeFormat | None = None,
        allocation: Allocation | None = None,
    ) -> Operation:
        """Let a volume lie elsewhere or otherwise, also while its VM runs; None leaves as it is."""
        wanted = {
            "datastore": datastore,
            "format": volume_format and volume_format.value,
            "allocation": allocation and allocation.value,
        }
        return self._operation(
            "PATCH",
            f"/v1/volumes/{volume_id}",
            body={"spec": {name: value for name, value in wanted.items() if value is not None}},
            headers=MERGE_PATCH,
        )

    def flatten_volume(self, volume_id: str) -> Operation:
        """Make a linked volume whole, also while its VM runs."""
        return self._operation("POST", f"/v1/volumes/{volume_id}/flatten")

    def check_volume(self, volume_id: str, *, repair: CheckRepair = CheckRepair.NONE) -> Operation:
        """Check a volume's file."""
        return self._operation("POST", f"/v1/volumes/{volume_id}/check", repair=repair.value)

    def delete_volume(self, volume_id: str) -> None:
        """Delete a volume."""
        self.transport.send("DELETE", f"/v1/volumes/{volume_id}")
