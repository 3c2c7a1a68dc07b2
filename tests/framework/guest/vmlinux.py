"""Take the uncompressed kernel out of a bzImage, by the x86 boot protocol's own fields."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from appliance_build.tools.sandbox import ToolsSandbox

__all__ = ["extract_vmlinux"]

HEADER_MAGIC_OFFSET = 0x202
SETUP_SECTORS_OFFSET = 0x1F1
PAYLOAD_OFFSET = 0x248
PAYLOAD_LENGTH = 0x24C
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SIZE_FIELD_BYTES = 4
"""The payload ends in the uncompressed size, which is no part of the compressed stream."""


class NotAKernelError(Exception):
    """The file is no bzImage with a zstd payload."""


def extract_vmlinux(tools: Path, bzimage: Path, target: Path) -> None:
    """Write the ELF kernel that the bzImage would unpack in memory."""
    data = bzimage.read_bytes()
    if data[HEADER_MAGIC_OFFSET : HEADER_MAGIC_OFFSET + 4] != b"HdrS":
        raise NotAKernelError(f"{bzimage} has no boot protocol header")
    code_start = (data[SETUP_SECTORS_OFFSET] + 1) * 512
    offset, length = struct.unpack_from("<II", data, PAYLOAD_OFFSET)
    payload = data[code_start + offset : code_start + offset + length - SIZE_FIELD_BYTES]
    if not payload.startswith(ZSTD_MAGIC):
        raise NotAKernelError(f"{bzimage} holds a payload that is not zstd")
    argv = ToolsSandbox(tools).argv(["zstd", "-d", "-c"])
    with target.open("wb") as file:
        subprocess.run(argv, input=payload, stdout=file, check=True, timeout=120)
    with target.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            raise NotAKernelError(f"{bzimage} unpacks to something that is not ELF")
