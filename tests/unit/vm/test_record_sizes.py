"""Whatever was accepted can be read again: who writes a record is held to what its reader takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from vmkernel.devices import Accelerator, Family
from vmkernel.host.files import RECORD_MAX_BYTES, read_limited, write_durably
from vmkernel.model import (
    CloudInitSpec,
    DiskSpec,
    ErrorCode,
    MicaError,
    NicSpec,
    SnapshotState,
    VmSpec,
    VolumeFormat,
)
from vmkernel.vm.spec.size import check_size
from vmkernel.vm.spec.validation import check_structure
from vmkernel.vm.store import clone_journal, saved_memory
from vmkernel.vm.store import definition as definitions
from vmkernel.vm.store import launch_record as record
from vmkernel.vm.store import snapshot_records as snapshots
from vmkernel.vm.store.definition import VmDefinition

ID = "x" * 63


def _largest() -> VmSpec:
    """As much as is accepted, of what takes most room in JSON."""
    spec = VmSpec(
        datastore=ID,
        name="\U0001f600" * 80,
        description="\t" * 4096,
        disks=tuple(DiskSpec(volume=f"{number:063}") for number in range(64)),
        nics=tuple(NicSpec(mac=f"52:54:00:00:00:{number:02x}") for number in range(16)),
        cloud_init=CloudInitSpec(),
    )
    labels: dict[str, str] = {}
    for number in range(64):
        more = labels | {f"{number:063}": '"' * 90}
        labels = more if _fits(replace(spec, labels=more)) else labels
    low, high = 0, 1 << 18
    while low < high:
        middle = (low + high + 1) // 2
        data = "#cloud-config\n" + "\x01" * middle
        fits = _fits(replace(spec, labels=labels, cloud_init=CloudInitSpec(user_data=data)))
        low, high = (middle, high) if fits else (low, middle - 1)
    data = "#cloud-config\n" + "\x01" * low
    return replace(spec, labels=labels, cloud_init=CloudInitSpec(user_data=data))


def _fits(spec: VmSpec) -> bool:
    try:
        check_size(spec)
    except MicaError:
        return False
    return True


def _definition(spec: VmSpec) -> VmDefinition:
    return VmDefinition(
        id=ID,
        uuid="0" * 36,
        revision=2**63 - 1,
        created_at="2026-01-01T00:00:00.000Z",
        machine_type="pc-q35-10.0",
        uid=100_000,
        spec=spec,
        snapshot=ID,
    )


def _keep_definition(folder: Path, spec: VmSpec) -> tuple[object, object]:
    made = _definition(spec)
    place = folder / ID
    place.mkdir()
    definitions.save(place, made)
    return made, definitions.load(place)


def _keep_launch(folder: Path, spec: VmSpec) -> tuple[object, object]:
    made = record.LaunchRecord(
        boot_id=record.boot_id(),
        started_at="2026-01-01T00:00:00.000Z",
        accelerator=Accelerator.TCG,
        memory_bytes=2**63 - 1,
        nics=(),
        has_ring=True,
        definition=_definition(spec),
    )
    record.write_record(folder / "launch.json", made)
    return made, record.read_record(folder / "launch.json")


def _keep_snapshot(folder: Path, spec: VmSpec) -> tuple[object, object]:
    made = snapshots.SnapshotRecord(
        id=ID,
        tag=f"mica-{'0' * 16}",
        created_at="2026-01-01T00:00:00.000Z",
        description="\t" * 4096,
        parent=ID,
        state=SnapshotState.READY,
        memory=True,
        quiesce=True,
        reason="\\" * 2000,
        machine_type="pc-q35-10.0",
        spec=spec,
        disks=tuple(
            snapshots.DiskRecord(volume=f"{n:063}", format=VolumeFormat.RAW, file=f"disk{n}.raw")
            for n in range(64)
        ),
    )
    snapshots.save(folder, made)
    return made, snapshots.load_all(folder)[0][ID]


def _keep_memory_image(folder: Path, spec: VmSpec) -> tuple[object, object]:
    made = saved_memory.MemoryImage(
        taken_at="2026-01-01T00:00:00.000Z",
        uuid="0" * 36,
        machine_type="pc-q35-10.0",
        accelerator=Accelerator.TCG,
        processor="x" * 200,
        size_bytes=2**62,
        crc32=0,
        started=spec,
        dimms=tuple((number, 2**62) for number in range(256)),
    )
    write_durably(folder / "suspend.json", msgspec.json.encode(made))
    found = saved_memory.find(folder)
    assert found is not None
    return made, found.image


def _keep_journal(folder: Path, _: VmSpec) -> tuple[object, object]:
    made = clone_journal.CloneJournal(
        token="0" * 16, vm=ID, volumes=tuple(f"{number:063}" for number in range(64))
    )
    clone_journal.begin(folder, made)
    return made, clone_journal._read_all(folder)[0]


KEEPERS: tuple[Callable[[Path, VmSpec], tuple[Any, Any]], ...] = (
    _keep_definition,
    _keep_launch,
    _keep_snapshot,
    _keep_memory_image,
    _keep_journal,
)


@pytest.fixture(scope="module")
def largest() -> VmSpec:
    """The largest spec that is accepted."""
    return _largest()


@pytest.mark.parametrize("keep", KEEPERS, ids=lambda keep: keep.__name__)
def test_the_largest_that_is_accepted_is_read_again(
    keep: Callable[[Path, VmSpec], tuple[Any, Any]], tmp_path: Path, largest: VmSpec
) -> None:
    assert len(msgspec.json.encode(largest)) > 512 << 10
    written, read = keep(tmp_path, largest)
    assert written == read


def test_what_nobody_could_read_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_durably(path, b"x" * RECORD_MAX_BYTES)
    assert len(read_limited(path, RECORD_MAX_BYTES)) == RECORD_MAX_BYTES
    with pytest.raises(OSError, match="larger"):
        write_durably(path, b"y" * (RECORD_MAX_BYTES + 1))
    assert path.read_bytes() == b"x" * RECORD_MAX_BYTES
    assert [found.name for found in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"labels": {f"k{number}": "v" * 250 for number in range(64)}}, "/spec/labels"),
        ({"labels": {f"k{number}": "\U0001f600" * 250 for number in range(60)}}, "/spec/labels"),
        ({"cloud_init": CloudInitSpec(user_data="#" + "\x01" * 200_000)}, "/spec/cloud_init"),
        (
            {"cloud_init": CloudInitSpec(meta_data={str(n): "v" * 20_000 for n in range(60)})},
            "/spec/cloud_init",
        ),
    ],
)
def test_what_is_too_large_is_refused_with_its_field(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(MicaError) as refused:
        check_structure(VmSpec(datastore="main", **fields), Family.Q35)
    assert refused.value.problem.code is ErrorCode.INVALID
    assert [field.pointer for field in refused.value.problem.fields] == [pointer]


def test_there_are_at_most_64_labels() -> None:
    labels = {f"k{number}": "" for number in range(65)}
    with pytest.raises(msgspec.ValidationError, match="labels"):
        msgspec.convert({"datastore": "main", "labels": labels}, VmSpec)
