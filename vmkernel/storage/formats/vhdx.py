"""VHDX: Hyper-V's disks, by [MS-VHDX] 2.2 to 2.6."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import (
    Data,
    Format,
    FormatError,
    Magic,
    unpack,
    whole_sectors,
)

__all__ = ["Vhdx"]

_HEADERS_AT = (64 << 10, 128 << 10)
_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_LOG_SECTOR_BYTES, _LOG_ENTRY_BYTES = 4096, 64
_LOG_GUID = slice(32, 48)
_MAX_LOG_BYTES = 256 << 20
"""Hyper-V and qemu make logs of 1 MiB."""
_REGIONS_AT = (192 << 10, 256 << 10)
_REGION = struct.Struct("<4sIII")
_ENTRY = struct.Struct("<16sQII")
_TABLE = struct.Struct("<8sHH")
_TABLE_BYTES = 32
_ITEM = struct.Struct("<16sIIII")
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_PARENT = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_HAS_PARENT = 0b10
_MAX_ENTRIES = 2047
_METADATA_FROM = 1 << 20


class Vhdx(Format):
    """Hyper-V."""

    noun = "a VHDX file"
    source = SourceFormat.VHDX
    magics = (Magic(0, b"vhdxfile"),)
    qemu_name = "vhdx"

    def has_tables(self, data: Data) -> bool:
        del data
        return True

    def size(self, data: Data) -> int:
        if not self.begins(data):
            raise FormatError("it does not begin like a VHDX file")
        for item, offset, _ in _items(data):
            if item == _SIZE:
                return whole_sectors(int.from_bytes(data.read(offset, 8), "little"))
        raise FormatError("it does not say its virtual size")

    def check(self, data: Data) -> None:
        for item, offset, _ in _items(data):
            flags = data.read(offset + 4, 4) if item == _PARAMETERS else bytes(4)
            if item == _PARENT or len(flags) < 4 or flags[0] & _HAS_PARENT:
                raise FormatError(
                    "it is a differencing VHDX, which needs its parent; merge it first"
                )
        if max((length for _, _, length in _logs(data)), default=0) > _MAX_LOG_BYTES:
            raise FormatError(
                f"its log has more than {_MAX_LOG_BYTES >> 20} MiB; open it once in Hyper-V, and"
                " send it again"
            )

    def pending_bytes(self, data: Data) -> int:
        """For a disk that was copied while in use, or whose host failed: the last changes of its
        tables are only in the log ([MS-VHDX] 2.3).

        QEMU decides if the log is complete enough to be replayed.
        """
        for guid, offset, length in _logs(data):
            for at in range(offset, min(offset + length, data.size), _LOG_SECTOR_BYTES):
                entry = data.read(at, _LOG_ENTRY_BYTES)
                if entry.startswith(b"loge") and entry[_LOG_GUID] == guid:
                    return length
        return 0


def _logs(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """The GUID, offset and length of the log, for each of the two headers with a log in use. Either
    header may be the valid one, as the other may be torn.
    """
    whole = 0
    for at in _HEADERS_AT:
        raw = data.read(at, _HEADER.size)
        if len(raw) < _HEADER.size or not raw.startswith(b"head"):
            continue
        whole += 1
        _, _, _, _, _, guid, _, _, length, offset = _HEADER.unpack(raw)
        if any(guid) and offset:
            yield guid, offset, length
    if not whole:
        raise FormatError("its headers are damaged")


def _items(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """The kind, offset in the file and length of each metadata item."""
    base = _metadata_at(data)
    signature, _, count = unpack(_TABLE, data, base)
    if signature != b"metadata":
        raise FormatError("its metadata table is not where one can be")
    assert isinstance(count, int)
    if count > _MAX_ENTRIES:
        raise FormatError(f"it has {count} metadata entries")
    for number in range(count):
        at = base + _TABLE_BYTES + number * _ITEM.size
        item, offset, length, _, _ = unpack(_ITEM, data, at)
        assert isinstance(item, bytes)
        assert isinstance(offset, int)
        assert isinstance(length, int)
        yield item, base + offset, length


def _metadata_at(data: Data) -> int:
    for table in _REGIONS_AT:
        signature, _, count, _ = unpack(_REGION, data, table)
        assert isinstance(count, int)
        if signature != b"regi" or count > _MAX_ENTRIES:
            continue
        for number in range(count):
            at = table + _REGION.size + number * _ENTRY.size
            kind, offset, _, _ = unpack(_ENTRY, data, at)
            assert isinstance(offset, int)
            if kind == _METADATA and _METADATA_FROM <= offset < data.size:
                return offset
    raise FormatError("its region tables name no metadata")
