"""GPT as it lies on a disk: read only, pure decoding apart from one function that opens the disk.

LBA 1    header  signature `EFI PART`, CRC-32 of itself, place and CRC-32 of the entries
LBA n    entries type GUID, unique GUID, first and last LBA, attributes, name
"""

from __future__ import annotations

import binascii
import os
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GptEntry", "GptTable", "decode_entries", "decode_header", "read_gpt"]

_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_SIGNATURE = b"EFI PART"
_MAX_TABLE_BYTES = 1 << 20
_SECTOR_SIZES = (512, 4096)


@dataclass(frozen=True)
class GptEntry:
    """A partition as the table names it."""

    number: int
    type_uuid: str
    uuid: str
    start_bytes: int
    size_bytes: int
    name: str


@dataclass(frozen=True)
class GptTable:
    """A disk's table."""

    disk_uuid: str
    entries: tuple[GptEntry, ...]


@dataclass(frozen=True)
class GptHeader:
    """Where the entries lie and what they must sum to."""

    disk_uuid: str
    entries_lba: int
    entry_count: int
    entry_bytes: int
    entries_crc: int


def decode_header(data: bytes) -> GptHeader | None:
    """The header in a sector; None where there is none or it doesn't hold together."""
    if len(data) < _HEADER.size or data[:8] != _SIGNATURE:
        return None
    fields = _HEADER.unpack_from(data)
    size, crc = fields[2], fields[3]
    if not _HEADER.size <= size <= len(data):
        return None
    if binascii.crc32(data[:16] + bytes(4) + data[20:size]) != crc:
        return None
    header = GptHeader(
        disk_uuid=str(uuid.UUID(bytes_le=fields[9])),
        entries_lba=fields[10],
        entry_count=fields[11],
        entry_bytes=fields[12],
        entries_crc=fields[13],
    )
    if header.entry_bytes < _ENTRY.size or not (
        0 < header.entry_count * header.entry_bytes <= _MAX_TABLE_BYTES
    ):
        return None
    return header


def decode_entries(header: GptHeader, data: bytes, sector_bytes: int) -> GptTable | None:
    """The used entries; None where they don't sum to what the header says."""
    length = header.entry_count * header.entry_bytes
    if len(data) < length or binascii.crc32(data[:length]) != header.entries_crc:
        return None
    entries = []
    for index in range(header.entry_count):
        kind, unique, first, last, _, name = _ENTRY.unpack_from(data, index * header.entry_bytes)
        if kind == bytes(16) or last < first:
            continue
        entries.append(
            GptEntry(
                number=index + 1,
                type_uuid=str(uuid.UUID(bytes_le=kind)),
                uuid=str(uuid.UUID(bytes_le=unique)),
                start_bytes=first * sector_bytes,
                size_bytes=(last - first + 1) * sector_bytes,
                name=name.decode("utf-16-le", errors="replace").split("\0", 1)[0],
            )
        )
    return GptTable(header.disk_uuid, tuple(entries))


def read_gpt(device: Path) -> GptTable | None:
    """A disk's primary table; None where there is none. Raises OSError where it can't be read."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        for sector_bytes in _SECTOR_SIZES:
            header = decode_header(os.pread(fd, sector_bytes, sector_bytes))
            if header is None:
                continue
            length = header.entry_count * header.entry_bytes
            data = os.pread(fd, length, header.entries_lba * sector_bytes)
            table = decode_entries(header, data, sector_bytes)
            if table is not None:
                return table
    finally:
        os.close(fd)
    return None
