"""Volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Unpack

from remote_api.client.sdk.base import CREATE, MERGE_PATCH, OnBytes
from remote_api.client.sdk.downloads import DownloadCalls
from remote_api.client.sdk.queries import VolumeListQuery
from remote_api.schema import (
    KeepVolumeBody,
    PageOf,
    SpecBody,
)
from vmkernel.model import Allocation, CheckRepair, Operation, Volume, VolumeFormat, VolumeSpec

__all__ = ["VolumeCalls"]


class VolumeCalls(DownloadCalls):
    """Volumes."""

    def volumes(self, **query: Unpack[VolumeListQuery]) -> Iterator[Volume]:
        """All volumes."""
        return self._all("/v1/volumes", PageOf[Volume], query)

    def volume(self, volume_id: str) -> Volume:
        """One volume."""
        return self.transport.send("GET", f"/v1/volumes/{volume_id}").read(Volume)

    def create_volume(self, volume_id: str, spec: VolumeSpec) -> Operation:
        """Create a volume."""
        return self._operation(
            "PUT", f"/v1/volumes/{volume_id}", body=SpecBody(spec=spec), headers=CREATE
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
        """Move or convert a volume, also while its VM runs; None leaves a property as it is."""
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
        """Copy a linked clone's backing data into it, also while its VM runs."""
        return self._operation("POST", f"/v1/volumes/{volume_id}/flatten")

    def check_volume(self, volume_id: str, *, repair: CheckRepair = CheckRepair.NONE) -> Operation:
        """Check a volume's file."""
        return self._operation("POST", f"/v1/volumes/{volume_id}/check", repair=repair.value)

    def delete_volume(self, volume_id: str) -> None:
        """Delete a volume."""
        self.transport.send("DELETE", f"/v1/volumes/{volume_id}")

    def volume_size(self, volume_id: str) -> int:
        """The bytes of a volume's file; RefusedError (`conflict`) if it has a backing chain."""
        # A refusal of HEAD has no body, and so no reason.
        path = f"/v1/volumes/{volume_id}/data"
        answer = self.transport.send("GET", path, headers={"range": "bytes=0-0"})
        return int((answer.header("content-range") or "").rpartition("/")[2] or len(answer.body))

    def download_volume(
        self, volume_id: str, file: Path | BinaryIO, *, on_bytes: OnBytes | None = None
    ) -> None:
        """Download the file of a volume that no running VM uses, in its format."""
        self._download(f"/v1/volumes/{volume_id}/data", file, on_bytes, None)
