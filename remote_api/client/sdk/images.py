"""Images: pulled by the host, captured from volumes, downloaded; `uploads` has the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Unpack

from remote_api.client.sdk.base import OnBytes
from remote_api.client.sdk.downloads import DownloadCalls
from remote_api.client.sdk.queries import ImageListQuery
from remote_api.schema import (
    CaptureBody,
    PageOf,
    PullBody,
)
from vmkernel.model import Image, ImageCapture, ImagePull, Operation

__all__ = ["ImageCalls"]


class ImageCalls(DownloadCalls):
    """Images."""

    def images(self, **query: Unpack[ImageListQuery]) -> Iterator[Image]:
        """All images."""
        return self._all("/v1/images", PageOf[Image], query)

    def image(self, image_id: str) -> Image:
        """One image."""
        return self.transport.send("GET", f"/v1/images/{image_id}").read(Image)

    def delete_image(self, image_id: str) -> None:
        """Delete an image."""
        self.transport.send("DELETE", f"/v1/images/{image_id}")

    def pull_image(self, image_id: str, pull: ImagePull) -> Operation:
        """Let the host download an image from a server."""
        return self._operation("POST", f"/v1/images/{image_id}/pull", body=PullBody(spec=pull))

    def capture_image(self, image_id: str, capture: ImageCapture) -> Operation:
        """Create an image from a volume that no running VM uses."""
        body = CaptureBody(spec=capture)
        return self._operation("POST", f"/v1/images/{image_id}/capture", body=body)

    def download_image(
        self, image_id: str, file: Path | BinaryIO, *, on_bytes: OnBytes | None = None
    ) -> Image:
        """Download an image into a new file, resuming after interruptions, and verify its digest.

        A stream gets the bytes in order. Raises ConflictError if the file exists.
        """
        image = self.image(image_id)
        self._download(f"/v1/images/{image_id}/data", file, on_bytes, image.spec.sha256)
        return image
