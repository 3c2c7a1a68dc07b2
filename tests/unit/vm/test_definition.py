"""vm.json: what is written is read, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmkernel.model import DiskSpec, VmSpec
from vmkernel.vm.store.definition import (
    DEFINITION_FILE,
    SCHEMA_VERSION,
    UPGRADES,
    DefinitionError,
    VmDefinition,
    decode,
    delete,
    encode,
    load,
    save,
)

SAMPLES = Path(__file__).parent / "samples"


def definition(vm_id: str = "web") -> VmDefinition:
    return VmDefinition(
        id=vm_id,
        uuid="00000000-0000-4000-8000-000000000001",
        revision=3,
        created_at="2026-01-02T03:04:05.678Z",
        machine_type="pc-q35-10.0",
        uid=100_007,
        spec=VmSpec(datastore="main", disks=(DiskSpec(volume="root"),)),
    )


def test_round_trip() -> None:
    assert decode(encode(definition())) == definition()


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("vm-*.json")), ids=lambda p: p.stem)
def test_every_old_schema_is_read(sample: Path) -> None:
    """One stored sample of each schema version; each comes up to the present one."""
    assert decode(sample.read_bytes()).schema_version == SCHEMA_VERSION


def test_there_is_a_sample_of_each_schema() -> None:
    versions = {json.loads(p.read_bytes())["schema_version"] for p in SAMPLES.glob("vm-*.json")}
    assert versions == set(range(1, SCHEMA_VERSION + 1))
    assert len(UPGRADES) == SCHEMA_VERSION - 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"[]", "not JSON"),
        (b'{"schema_version": true}', "no schema version"),
        (b'{"schema_version": 99}', "newer Mica"),
        (b'{"schema_version": 1}', "content is wrong"),
        (encode(definition()).replace(b'"revision"', b'"surprise"'), "content is wrong"),
    ],
)
def test_reasons(data: bytes, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        decode(data)


def test_folder(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    save(folder, definition())
    assert load(folder) == definition()
    assert [p.name for p in folder.iterdir()] == [DEFINITION_FILE]
    delete(folder)
    assert not folder.exists()


def test_the_folder_names_the_vm(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    save(folder, definition())
    with pytest.raises(DefinitionError, match="definition of 'web'"):
        load(folder)


def test_no_link_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    (tmp_path / "real").write_bytes(encode(definition()))
    (folder / DEFINITION_FILE).symlink_to(tmp_path / "real")
    with pytest.raises(DefinitionError, match="can't be read"):
        load(folder)
