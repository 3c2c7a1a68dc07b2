"""Partition tables, as they lie on a disk."""

from __future__ import annotations

import struct
import uuid
import zlib

from hypothesis import given
from hypothesis import strategies as st

from vmkernel.host.gpt import read_gpt

TYPE = uuid.UUID("6d696361-6461-4461-a5e5-1b7c8d9e0f21")
UNIQUE = uuid.UUID("df41be67-73ce-414b-8699-8300b8e69b53")
SECTORS = 4096


def _disk(sector: int = 512, *, backup_only: bool = False) -> bytearray:
    """A disk with one partition from sector 100 to 199."""
    data = bytearray(SECTORS * sector)
    entry = struct.pack("<16s16sQQQ72s", TYPE.bytes_le, UNIQUE.bytes_le, 100, 199, 0, b"")
    name = "mica-datastore".encode("utf-16-le")
    table = bytearray(128 * 128)
    table[128 : 128 + len(entry)] = entry  # the second slot; the first is not used
    table[128 + 56 : 128 + 56 + len(name)] = name
    for here, entries in ((1, 2), (SECTORS - 1, SECTORS - 1 - 128 * 128 // sector)):
        head = bytearray(
            struct.pack(
                "<8sIIIIQQQQ16sQIII",
                b"EFI PART",
                0x10000,
                92,
                0,
                0,
                here,
                SECTORS - here,
                40,
                SECTORS - 40,
                uuid.uuid4().bytes_le,
                entries,
                128,
                128,
                zlib.crc32(table),
            )
        )
        head[16:20] = struct.pack("<I", zlib.crc32(head))
        if not (backup_only and here == 1):
            data[here * sector : here * sector + len(head)] = head
        data[entries * sector : entries * sector + len(table)] = table
    return data


def _read(data: bytes | bytearray, sector: int = 512):  # type: ignore[no-untyped-def]
    return read_gpt(lambda at, length: bytes(data[at : at + length]), len(data), sector)


def test_a_table_is_read() -> None:
    for sector in (512, 4096):
        (partition,) = _read(_disk(sector), sector)
        assert partition.number == 2
        assert partition.type_guid == str(TYPE)
        assert partition.unique_guid == str(UNIQUE)
        assert partition.first_byte == 100 * sector
        assert partition.size_bytes == 100 * sector
        assert partition.name == "mica-datastore"


def test_the_backup_counts_where_the_primary_is_gone() -> None:
    assert _read(_disk(backup_only=True)) == _read(_disk())


def test_a_blank_disk_has_no_table() -> None:
    assert _read(bytes(SECTORS * 512)) is None
    assert _read(b"") is None


@given(st.integers(512, 512 + 91), st.integers(0, 7))
def test_a_damaged_header_is_not_believed(at: int, bit: int) -> None:
    data = _disk()
    whole = _read(data)
    data[at] ^= 1 << bit
    data[(SECTORS - 1) * 512] ^= 1  # and no backup
    assert _read(data) is None
    assert whole is not None


@given(st.binary(max_size=92))
def test_noise_is_no_table(noise: bytes) -> None:
    data = bytearray(SECTORS * 512)
    data[512 : 512 + len(noise)] = noise
    assert _read(data) is None
