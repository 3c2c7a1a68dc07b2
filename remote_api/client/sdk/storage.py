"""Images and volumes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from remote_api.client.errors import MisuseError
from remote_api.client.sdk.base import CREATE, MERGE_PATCH, Calls, OnBytes
from remote_api.schema import (
    Allocation,
    CheckRepair,
    Image,
    ImageFormat,
    ImagePage,
    Operation,
    Volume,
    VolumeBody,
    VolumeFormat,
    VolumePage,
    VolumeSpec,
)

__all__ = ["StorageCalls", "file_sha256"]

_PART_BYTES = 1 << 18


class StorageCalls(Calls):
    """Images and volumes."""

    def images(self, datastore: str | None = None) -> Iterator[Image]:
        """All images."""
        return self._all("/v1/images", ImagePage, datastore=datastore)

    def image(self, image_id: str) -> Image:
        """One image."""
        return self.transport.send("GET", f"/v1/images/{image_id}").read(Image)

    def upload_image(
        self,
        image_id: str,
        file: Path,
        *,
        datastore: str,
        image_format: ImageFormat,
        sha256: str | None = None,
        wait_s: float = 300.0,
        on_bytes: OnBytes | None = None,
    ) -> Image | Operation:
        """Upload a file; an operation where the host takes longer than `wait_s` to prove it."""
        digest = sha256 or file_sha256(file)
        try:
            size = file.stat().st_size
        except OSError as error:
            raise MisuseError(f"{file} can't be read: {error.strerror}") from error
        answer = self.transport.send(
            "PUT",
            f"/v1/images/{image_id}",
            parameters={
                "datastore": datastore,
                "format": image_format.value,
                "sha256": digest,
                "wait": wait_s,
            },
            content=_parts(file, on_bytes),
            headers={
                **CREATE,
                "content-length": str(size),
                "content-type": "application/octet-stream",
            },
            wait_s=wait_s,
        )
        return answer.read(Operation) if answer.status == 202 else answer.read(Image)

    def delete_image(self, image_id: str) -> None:
        """Delete an image."""
        self.transport.send("DELETE", f"/v1/images/{image_id}")

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

    def check_volume(self, volume_id: str, *, repair: CheckRepair = CheckRepair.NONE) -> Operation:
        """Check a volume's file."""
        return self._operation("POST", f"/v1/volumes/{volume_id}/check", repair=repair.value)

    def delete_volume(self, volume_id: str) -> None:
        """Delete a volume."""
        self.transport.send("DELETE", f"/v1/volumes/{volume_id}")


def file_sha256(file: Path, on_bytes: OnBytes | None = None) -> str:
    """The digest of a file. Raises MisuseError where it can't be read."""
    digest = hashlib.sha256()
    for part in _parts(file, on_bytes):
        digest.update(part)
    return digest.hexdigest()


def _parts(file: Path, on_bytes: OnBytes | None) -> Iterator[bytes]:
    try:
        with file.open("rb") as source:
            while part := source.read(_PART_BYTES):
                yield part
                if on_bytes is not None:
                    on_bytes(len(part))
    except OSError as error:
        raise MisuseError(f"{file} can't be read: {error.strerror}") from error
