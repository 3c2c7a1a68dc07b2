"""The TPM's state as one file: taken over from the folder of before, copied while it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.host.test_folder import exchanging
from vmkernel.host.folder import UnsafeFileError
from vmkernel.vm import tpm_state

SAMPLE = (Path(__file__).parent / "samples/tpm2-00.permall").read_bytes()
"""As swtpm 0.7.1 wrote it into the folder of a VM; a real one reads it out of our file in
tests/hosted/test_tpm_state.py."""


def _old(folder: Path) -> Path:
    (folder / "tpm").mkdir(parents=True)
    (folder / "tpm/tpm2-00.permall").write_bytes(SAMPLE)
    (folder / "tpm/.lock").touch()
    return folder


def test_the_folder_of_before_becomes_a_file(tmp_path: Path) -> None:
    folder = _old(tmp_path / "vm")
    path = tpm_state.prepare(folder)
    assert [p.name for p in folder.iterdir()] == ["tpm.state"]
    assert tpm_state.decode(path.read_bytes()) == {"permall": SAMPLE}
    inode = path.stat().st_ino
    tpm_state.prepare(folder)
    assert path.stat().st_ino == inode


def test_a_crash_between_file_and_folder_keeps_the_file(tmp_path: Path) -> None:
    folder = _old(tmp_path / "vm")
    later = tpm_state.encode({"permall": b"later"})
    (folder / "tpm.state").write_bytes(later)
    tpm_state.prepare(folder)
    assert (folder / "tpm.state").read_bytes() == later
    assert not (folder / "tpm").exists()


def test_a_new_tpm_begins_with_an_empty_file(tmp_path: Path) -> None:
    path = tpm_state.prepare(tmp_path)
    assert path.read_bytes() == b""
    assert path.stat().st_mode & 0o777 == 0o600
    assert tpm_state.decode(b"") == {}


def test_parts_come_back(tmp_path: Path) -> None:
    del tmp_path
    for parts in (
        {"permall": SAMPLE, "volatilestate": b"v" * 5000, "savestate": b"s"},
        {"volatilestate": b"", "savestate": b"x" * 4096},
        {},
    ):
        assert tpm_state.decode(tpm_state.encode(parts)) == parts
    whole = tpm_state.encode({"permall": SAMPLE})
    for broken in (whole[:100], whole[: len(SAMPLE)], b"x" * 400):
        with pytest.raises(ValueError, match="it is"):
            tpm_state.decode(broken)


@pytest.mark.parametrize("name", ["tpm.state", "tpm", "tpm/tpm2-00.permall"])
@pytest.mark.parametrize("kind", ["link", "pipe", "second name", "huge"])
def test_nothing_else_is_taken_for_it(tmp_path: Path, name: str, kind: str) -> None:
    folder, target = tmp_path / "vm", tmp_path / "snapshot"
    target.mkdir()
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "tpm2-00.permall").write_bytes(b"of the host")
    path = folder / name
    path.parent.mkdir(parents=True)
    if kind == "link":
        path.symlink_to(secret if name == "tpm" else secret / "tpm2-00.permall")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "second name":
        os.link(secret / "tpm2-00.permall", path)
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(UnsafeFileError):
        tpm_state.copy(folder, target)
    if name != "tpm.state":
        with pytest.raises(UnsafeFileError):
            tpm_state.prepare(folder)
    assert list(target.iterdir()) == []
    assert (secret / "tpm2-00.permall").read_bytes() == b"of the host"


def test_a_link_swapped_in_while_it_is_copied_is_never_followed(tmp_path: Path) -> None:
    folder, target = tmp_path / "vm", tmp_path / "snapshot"
    folder.mkdir()
    target.mkdir()
    (folder / "tpm.state").write_bytes(tpm_state.encode({"permall": b"ours"}))
    secret = tpm_state.encode({"permall": b"of the host"})
    (tmp_path / "secret").write_bytes(secret)
    (folder / "other").symlink_to(tmp_path / "secret")
    with exchanging(folder / "tpm.state", folder / "other"):
        for _ in range(60):
            try:
                tpm_state.copy(folder, target)
            except UnsafeFileError:
                continue
            assert (target / "tpm.state").read_bytes() != secret
            assert not (target / "tpm.state").is_symlink()


def test_what_is_written_to_all_the_time_is_refused_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, target = tmp_path / "vm", tmp_path / "snapshot"
    folder.mkdir()
    target.mkdir()
    path = folder / "tpm.state"
    path.write_bytes(tpm_state.encode({"permall": bytes(64)}))
    writes = 0

    def write(seconds: float) -> None:
        nonlocal writes
        del seconds
        writes += 1
        if writes != 25:  # the second copy finds it at rest for once
            path.write_bytes(tpm_state.encode({"permall": str(writes).encode()}))

    monkeypatch.setattr("vmkernel.vm.tpm_state.time.sleep", write)
    with pytest.raises(UnsafeFileError, match="being changed"):
        tpm_state.copy(folder, target)
    assert list(target.iterdir()) == []
    assert 10 < writes < 25
    tpm_state.copy(folder, target)
    assert tpm_state.decode((target / "tpm.state").read_bytes()) == {"permall": b"24"}


def test_going_back_to_an_old_snapshot_and_to_one_without_a_tpm(tmp_path: Path) -> None:
    vm = tmp_path / "vm"
    vm.mkdir()
    (vm / "tpm.state").write_bytes(tpm_state.encode({"permall": b"now"}))
    tpm_state.copy(_old(tmp_path / "old"), vm)
    assert tpm_state.decode((vm / "tpm.state").read_bytes()) == {"permall": SAMPLE}
    (tmp_path / "none").mkdir()
    tpm_state.copy(tmp_path / "none", vm)
    assert list(vm.iterdir()) == []
