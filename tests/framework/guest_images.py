"""The test guest's kernel and initrd as images of a host."""

from __future__ import annotations

from pathlib import Path

from remote_api.client.sdk import Mica
from tests.framework.guest import guest_files
from vmkernel.model import ImageFormat

__all__ = ["upload_guest"]


def upload_guest(
    mica: Mica, prefix: str = "", *, datastore: str = "main", initrd: Path | None = None
) -> tuple[str, str]:
    """Upload both, the initrd another one if that is given; their ids, which begin
    with the prefix.
    """
    files = guest_files()
    kernel_id, initrd_id = f"{prefix}kernel", f"{prefix}initrd"
    for image_id, file, image_format in (
        (kernel_id, files.vmlinux, ImageFormat.LINUX_KERNEL),
        (initrd_id, initrd or files.initrd, ImageFormat.LINUX_INITRD),
    ):
        mica.upload_image(image_id, file, datastore=datastore, image_format=image_format)
    return kernel_id, initrd_id
