"""Real media: a file, and direct input and output past the page cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmkernel.state.log import StateLog
from vmkernel.state.media import SLOT_BYTES, FileMedium, PartitionMedium


def test_a_file_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state.log"
    medium = FileMedium(path)
    log = StateLog(medium)
    log.load(1)
    for number in range(20):
        log.append(1, b"%d" % number * 100)
    medium.close()
    again = FileMedium(path)
    found = StateLog(again).load(1)
    assert found.snapshot is not None
    assert found.snapshot.payload == b"19" * 100
    assert path.stat().st_mode & 0o777 == 0o600
    again.close()


def test_a_file_has_one_user(tmp_path: Path) -> None:
    medium = FileMedium(tmp_path / "state.log")
    with pytest.raises(BlockingIOError):
        FileMedium(tmp_path / "state.log")
    medium.close()
    FileMedium(tmp_path / "state.log").close()


def _direct(path: Path, size: int) -> PartitionMedium:
    with path.open("wb") as file:
        file.truncate(size)
    try:
        return PartitionMedium(path)
    except OSError as error:
        if os.strerror(error.errno or 0) == "Invalid argument":
            pytest.skip("no O_DIRECT on this file system")
        raise


def test_a_partition_is_written_past_the_page_cache(tmp_path: Path) -> None:
    medium = _direct(tmp_path / "part", 5 * SLOT_BYTES + 1000)
    assert medium.slot_count == 5
    log = StateLog(medium)
    log.load(1)
    payloads = [os.urandom(size) for size in (1, 4032, 4033, 100_000, log.capacity_bytes, 7)]
    for payload in payloads:
        log.append(1, payload)
    found = StateLog(medium).load(1)
    assert found.snapshot is not None
    assert found.snapshot.payload == payloads[-1]
    assert found.snapshot.generation == len(payloads)
    medium.close()


def test_a_partition_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="smaller than"):
        _direct(tmp_path / "part", 2 * SLOT_BYTES - 512)
