"""Pack the staging tree into the compressed read-only root image.

erofs was chosen over squashfs by measuring (README): the kernel mounts it straight from the file
in the initrd's memory, without a loop device and without a second copy in the page cache.
"""

from pathlib import Path

from appliance_build.release.version import SOURCE_DATE_EPOCH
from appliance_build.tools.sandbox import ToolsSandbox

__all__ = ["write_root_image"]

IMAGE_UUID = "6d696361-726f-4f74-8000-000000000001"
CLUSTER_BYTES = 131072
ZSTD_LEVEL = 12


def write_root_image(tools: Path, stage: Path, target: Path) -> None:
    """Write the image; every file in it belongs to root and bears the release's epoch."""
    target.unlink(missing_ok=True)
    sandbox = ToolsSandbox(tools, readable=[stage], writable=[target.parent])
    sandbox.run(
        [
            "mkfs.erofs",
            "--quiet",
            f"-zzstd,level={ZSTD_LEVEL}",
            f"-C{CLUSTER_BYTES}",
            f"-T{SOURCE_DATE_EPOCH}",
            f"-U{IMAGE_UUID}",
            "-Lmica-root",
            "--all-root",
            target,
            stage,
        ],
        timeout_s=1200,
    )
