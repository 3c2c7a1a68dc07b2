"""Records of a datastore that comes from anybody: whatever is in them is a reason in words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmkernel.decoding import UndecodableError, decode_document, decode_json
from vmkernel.model import VmSpec
from vmkernel.state.config import decode_config
from vmkernel.state.errors import StateError
from vmkernel.storage.records import (
    ImageRecord,
    LeaseRecord,
    Marker,
    RecordError,
    UploadRecord,
    VolumeRecord,
    decode,
)
from vmkernel.vm.lifecycle import autostart
from vmkernel.vm.store import clone_journal, definition, saved_memory
from vmkernel.vm.store import launch_record as record
from vmkernel.vm.store import snapshot_records as snapshots
from vmkernel.vm.store.definition import DefinitionError

HOSTILE = {
    "deep arrays": b'{"schema": 1, "schema_version": 1, "x": ' + b"[" * 400_000 + b"]" * 400_000,
    "deep and whole": b'{"schema": 1, "spec": ' + b"[" * 99_999 + b"]" * 99_999 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of 9,000 digits": b'{"schema_version": ' + b"9" * 9_000 + b"}",
    "a huge schema": b'{"schema_version": 1e400, "schema": 1e400}',
    "no UTF-8": b'{"schema": 1, "id": "\xff\xfe"}',
    "half a character": b'{"schema": 1, "id": "\\ud800"}',
    "an array": b"[]",
    "nothing": b"",
    "null": b"null",
    "escape sequences": b'{"schema": 1, "\\u001b]0;x\\u0007": "\\u202e"}',
}


@pytest.fixture(params=list(HOSTILE.values()), ids=list(HOSTILE))
def hostile(request: pytest.FixtureRequest) -> bytes:
    """What somebody may have put into a file."""
    data: bytes = request.param
    return data


def test_decoding_has_one_failure(hostile: bytes) -> None:
    with pytest.raises(UndecodableError) as told:
        decode_json(hostile, VmSpec)
    assert len(str(told.value)) <= 200
    assert str(told.value).isprintable()
    with contextlib.suppress(UndecodableError):
        decode_document(hostile)


@pytest.mark.parametrize("kind", [ImageRecord, LeaseRecord, Marker, UploadRecord, VolumeRecord])
def test_records_of_storage(hostile: bytes, kind: Any) -> None:
    with pytest.raises(RecordError) as told:
        decode(kind, hostile)
    assert str(told.value).isprintable()


def test_definitions(hostile: bytes) -> None:
    with pytest.raises(DefinitionError) as told:
        definition.decode(hostile)
    assert str(told.value).isprintable()


def test_the_host_s_own_configuration(hostile: bytes) -> None:
    with pytest.raises(StateError):
        decode_config(1, hostile)


def _suspended(folder: Path, data: bytes) -> None:
    (folder / "suspend.json").write_bytes(data)
    found = saved_memory.find(folder)
    assert found is not None
    assert found.problem is not None


def _snapshots(folder: Path, data: bytes) -> None:
    (folder / "snapshots/one").mkdir(parents=True)
    (folder / "snapshots/one/snapshot.json").write_bytes(data)
    assert snapshots.load_all(folder)[0] == {}


def _launched(folder: Path, data: bytes) -> None:
    (folder / "launch.json").write_bytes(data)
    assert record.read_record(folder / "launch.json") is None


def _clones(folder: Path, data: bytes) -> None:
    (folder / ".clone-web.json").write_bytes(data)
    assert clone_journal._read_all(folder) == []


def _autostarted(folder: Path, data: bytes) -> None:
    (folder / "autostart.json").write_bytes(data)
    assert autostart._read(folder / "autostart.json") is None


@pytest.mark.parametrize("look", [_suspended, _snapshots, _launched, _clones, _autostarted])
def test_records_of_vms(
    look: Callable[[Path, bytes], None], hostile: bytes, tmp_path: Path
) -> None:
    look(tmp_path, hostile)
