"""What a power cut leaves, from a record of writes and flushes."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.framework.power_cut import MAGIC, Entry, EntryFlag, WriteLog, apply_cut, survivors
from tests.framework.stick import region_after

SECTOR = 512
NOTHING = EntryFlag(0)

entries = st.lists(
    st.builds(
        Entry,
        flags=st.sampled_from([NOTHING, EntryFlag.FUA, EntryFlag.FLUSH]),
        offset=st.integers(0, 7).map(lambda sector: sector * SECTOR),
        data=st.integers(1, 255).map(lambda byte: bytes([byte]) * SECTOR * 2),
    ).map(lambda entry: Entry(entry.flags, entry.offset, b"") if entry.flags & 1 else entry),
    max_size=12,
)


def _encoded(found: list[Entry]) -> bytes:
    log = struct.pack("<QQQI", MAGIC, 1, len(found), SECTOR).ljust(SECTOR, b"\0")
    for entry in found:
        head = struct.pack(
            "<QQQQ", entry.offset // SECTOR, len(entry.data) // SECTOR, entry.flags, 0
        )
        log += head.ljust(SECTOR, b"\0") + entry.data
    return log


@given(entries)
def test_what_was_flushed_survives_and_the_rest_does_not(found: list[Entry]) -> None:
    flushes = [number for number, entry in enumerate(found) if entry.flags & EntryFlag.FLUSH]
    flushed = flushes[-1] + 1 if flushes else 0
    later = [entry for entry in found[flushed:] if entry.flags & EntryFlag.FUA]
    assert survivors(found) == [*found[:flushed], *later]


@given(entries, st.integers())
def test_torn_writes_only_add_to_what_survives(found: list[Entry], seed: int) -> None:
    least = survivors(found)
    torn = survivors(found, random.Random(seed))
    following = iter(torn)
    assert all(entry in following for entry in least), "not in the order of what is flushed"
    assert all(len(entry.data) % SECTOR == 0 for entry in torn)


def test_a_record_is_read_up_to_an_instant(tmp_path: Path) -> None:
    written = [
        Entry(NOTHING, 0, b"a" * SECTOR),
        Entry(EntryFlag.FLUSH, 0, b""),
        Entry(EntryFlag.FUA, SECTOR, b"b" * SECTOR * 2),
    ]
    log = tmp_path / "log"
    log.write_bytes(_encoded(written))
    assert WriteLog(log).entries() == written
    whole = WriteLog(log).size()
    assert WriteLog(log).entries(whole - 1) == written[:2]
    assert WriteLog(log).entries(SECTOR * 3) == written[:1]
    assert WriteLog(log).entries(0) == []


@given(entries)
def test_a_region_is_what_the_disk_holds_there(found: list[Entry]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk"
        disk.write_bytes(bytes(SECTOR * 10))
        region = region_after(disk, found, SECTOR, SECTOR * 4)
        apply_cut(disk, found)
        assert region == disk.read_bytes()[SECTOR : SECTOR * 5]
