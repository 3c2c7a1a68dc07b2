"""A stick image from outside: its partitions, its `mica.toml`, parts of it after a power cut."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from appliance_build.tools.sandbox import ToolsSandbox
from tests.framework.power_cut import Entry

__all__ = ["partition_of", "put_settings", "region_after"]

SECTOR_BYTES = 512
HEADER = struct.Struct("<8sIIIIQQQQ16sQII")
NAME_OFFSET = 56


def partition_of(image: Path, label: str) -> tuple[int, int]:
    """Where the GPT partition with a label begins, and how long it is, in bytes."""
    with image.open("rb") as file:
        file.seek(SECTOR_BYTES)
        header = HEADER.unpack(file.read(HEADER.size))
        if header[0] != b"EFI PART":
            raise AssertionError(f"{image} has no GPT")
        first_entry, count, entry_bytes = header[10], header[11], header[12]
        file.seek(first_entry * SECTOR_BYTES)
        for _ in range(count):
            entry = file.read(entry_bytes)
            name = entry[NAME_OFFSET:].decode("utf-16-le").rstrip("\0")
            if name == label:
                first, last = struct.unpack_from("<QQ", entry, 32)
                return first * SECTOR_BYTES, (last - first + 1) * SECTOR_BYTES
    raise AssertionError(f"{image} has no partition {label}")


def region_after(image: Path, entries: Sequence[Entry], start: int, length: int) -> bytes:
    """A region of the image once the entries were written to it."""
    with image.open("rb") as file:
        file.seek(start)
        region = bytearray(file.read(length))
    for entry in entries:
        first, last = max(entry.offset, start), min(entry.offset + len(entry.data), start + length)
        if first < last:
            part = entry.data[first - entry.offset : last - entry.offset]
            region[first - start : last - start] = part
    return bytes(region)


def put_settings(tools: Path, image: Path, text: str) -> None:
    """Write `mica.toml` on a raw stick image, as an administrator would by any FAT driver."""
    offset, _ = partition_of(image, "mica-esp")
    file = image.with_name("mica.toml")
    file.write_text(text)
    ToolsSandbox(tools, writable=[image.parent]).run(
        ["mcopy", "-o", "-i", f"{image}@@{offset}", file, "::mica.toml"],
        timeout_s=60,
        env={"MTOOLS_SKIP_CHECK": "1"},
    )
