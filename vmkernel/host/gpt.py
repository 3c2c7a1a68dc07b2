"""Reading GUID partition tables (UEFI specification, chapter 5): pure, and never writing.

The primary or the backup header is used, and a table only if its checksums are right.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["GptPartition", "read_gpt"]

_SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MAX_ENTRIES = 1024
_MAX_ENTRY_BYTES = 1024

ReadAt = Callable[[int, int], bytes]
"""`read(offset, length)`; shorter at the end of the disk."""


@dataclass(frozen=True)
class GptPartition:
    """One used entry."""

    number: int
    type_guid: str
    """Lower case."""
    unique_guid: str
    first_byte: int
    size_bytes: int
    name: str


def read_gpt(read: ReadAt, size_bytes: int, sector_bytes: int) -> tuple[GptPartition, ...] | None:
    """The partitions of a disk in the order of the table; None if it has no valid GPT."""
    last = size_bytes // sector_bytes - 1
    for sector in (1, last):
        partitions = _table(read, sector, sector_bytes)
        if partitions is not None:
            return partitions
    return None


def _table(read: ReadAt, sector: int, sector_bytes: int) -> tuple[GptPartition, ...] | None:
    raw = read(sector * sector_bytes, sector_bytes)
    if len(raw) < _HEADER.size:
        return None
    fields = _HEADER.unpack_from(raw)
    signature, _, header_bytes, header_crc, _, here = fields[:6]
    entries_sector, count, entry_bytes, entries_crc = fields[10:]
    if signature != _SIGNATURE or here != sector:
        return None
    if not _HEADER.size <= header_bytes <= sector_bytes:
        return None
    zeroed = raw[:16] + bytes(4) + raw[20:header_bytes]
    if zlib.crc32(zeroed) != header_crc:
        return None
    if not 0 < count <= _MAX_ENTRIES or not _ENTRY.size <= entry_bytes <= _MAX_ENTRY_BYTES:
        return None
    table = read(entries_sector * sector_bytes, count * entry_bytes)
    if len(table) != count * entry_bytes or zlib.crc32(table) != entries_crc:
        return None
    partitions = []
    for index in range(count):
        kind, unique, first, final, _, name = _ENTRY.unpack_from(table, index * entry_bytes)
        if kind == bytes(16) or final < first:
            continue
        partitions.append(
            GptPartition(
                number=index + 1,
                type_guid=str(uuid.UUID(bytes_le=kind)),
                unique_guid=str(uuid.UUID(bytes_le=unique)),
                first_byte=first * sector_bytes,
                size_bytes=(final - first + 1) * sector_bytes,
                name=name.decode("utf-16-le", errors="replace").partition("\0")[0],
            )
        )
    return tuple(partitions)
