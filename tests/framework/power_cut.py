"""What a power cut leaves of a disk, computed from a record of every write and flush.

QEMU's `blklogwrites` filter records what the machine sends to a disk, in order, in the format of
the kernel's dm-log-writes. A power cut at any instant is then: everything up to the last flush
before it is on the disk, and of what was written after that flush nothing needs to be (or, torn,
only a part). Killing the emulator alone proves less: what it had handed to its own kernel
without a flush would survive.

    superblock   magic, version, number of entries, sector size
    entry        sector, sectors, flags, data length; padded to a sector; data follows
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

__all__ = ["Entry", "EntryFlag", "WriteLog", "apply_cut", "survivors"]

MAGIC = 0x6A736677736872
SUPERBLOCK = struct.Struct("<QQQI")
ENTRY = struct.Struct("<QQQQ")
SECTOR_BYTES = 512


class EntryFlag(IntFlag):
    """What an entry says besides its data."""

    FLUSH = 1
    FUA = 2
    DISCARD = 4
    MARK = 8


@dataclass(frozen=True)
class Entry:
    """One thing that the machine sent to its disk."""

    flags: EntryFlag
    offset: int
    data: bytes


class WriteLog:
    """A record that QEMU may still be adding to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def size(self) -> int:
        """How long the record is now; a point in time for `entries`."""
        return self._path.stat().st_size

    def entries(self, until: int | None = None) -> list[Entry]:
        """The entries that were complete when the record was `until` bytes long.

        What was discarded may hold anything; it is taken as if it had not been discarded.
        """
        with self._path.open("rb") as file:
            data = file.read() if until is None else file.read(until)
        if len(data) < SECTOR_BYTES:
            return []
        magic, _, _, sector_bytes = SUPERBLOCK.unpack_from(data)
        if magic != MAGIC:
            raise ValueError(f"{self._path} is no write log")
        found, position = [], sector_bytes
        while position + sector_bytes <= len(data):
            sector, sectors, flags, length = ENTRY.unpack_from(data, position)
            position += sector_bytes
            whole = EntryFlag(flags)
            payload = 0 if whole & EntryFlag.DISCARD else sectors * sector_bytes
            if length == 0 and payload == 0 and not flags:
                break  # not written yet
            if position + payload > len(data):
                break
            body = data[position : position + payload]
            found.append(Entry(whole, sector * sector_bytes, body))
            position += payload
        return found


def survivors(entries: Sequence[Entry], chance: random.Random | None = None) -> list[Entry]:
    """What a power cut after these entries leaves at least; with `chance`, torn writes besides.

    Everything before the last flush, and every write with FUA. Of each later write `chance` keeps
    none, all, or its first sectors.
    """
    flushed = 0
    for number, entry in enumerate(entries):
        if entry.flags & EntryFlag.FLUSH:
            flushed = number + 1
    kept = list(entries[:flushed])
    for entry in entries[flushed:]:
        if entry.flags & EntryFlag.FUA:
            kept.append(entry)
        elif chance is not None and entry.data:
            sectors = chance.randint(0, len(entry.data) // SECTOR_BYTES)
            kept.append(Entry(entry.flags, entry.offset, entry.data[: sectors * SECTOR_BYTES]))
    return kept


def apply_cut(disk: Path, entries: Sequence[Entry]) -> None:
    """Write the entries to a raw disk, in order."""
    with disk.open("r+b") as file:
        for entry in entries:
            if entry.data:
                file.seek(entry.offset)
                file.write(entry.data)
