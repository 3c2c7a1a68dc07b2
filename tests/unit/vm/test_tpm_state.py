"""The TPM's state as one file: taken over from the folder of before, copied while it changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.host.test_folder import exchanging
from vmkernel.host.folder import UnsafeFileError
from vmkernel.vm.nonvolatile import tpm_state

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

    monkeypatch.setattr("vmkernel.vm.nonvolatile.tpm_state.time.sleep", write)
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


# --- damage ---------------------------------------------------------------------------------------

WHOLE = tpm_state.encode({"permall": SAMPLE})
DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "zeros": bytes(len(WHOLE)),
    "cut in its header": WHOLE[:40],
    "cut in its data": WHOLE[: len(WHOLE) // 2],
    "the header did not reach the disk": bytes(512) + WHOLE[512:],
    "the data did not reach the disk": WHOLE[:192] + bytes(len(WHOLE) - 192),
    "a length of another write": tpm_state.encode({"permall": SAMPLE + b"x"}),
    "something else": b"x" * len(WHOLE),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_state_gives_way_to_the_good_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tpm.state"
    path.write_bytes(WHOLE)
    began, restored = tpm_state.prove(tmp_path)
    assert (began, restored) == (WHOLE, None)
    tpm_state.keep(tmp_path, began)
    path.write_bytes(DAMAGE[kind])
    began, restored = tpm_state.prove(tmp_path)
    assert began == WHOLE
    assert restored
    assert path.read_bytes() == WHOLE
    assert (tmp_path / "tpm.state.damaged").read_bytes() == DAMAGE[kind]
    assert tpm_state.prove(tmp_path) == (WHOLE, None)
    path.unlink()
    assert tpm_state.prove(tmp_path)[1] == "it is missing"


@pytest.mark.parametrize("kind", sorted(set(DAMAGE) - {"empty", "zeros"}))
def test_damage_without_a_copy_is_told(tmp_path: Path, kind: str) -> None:
    """And not overwritten by swtpm, which would make a new TPM of it."""
    (tmp_path / "tpm.state").write_bytes(DAMAGE[kind])
    with pytest.raises(tpm_state.TpmDamagedError):
        tpm_state.prove(tmp_path)
    assert (tmp_path / "tpm.state").read_bytes() == DAMAGE[kind]
    (tmp_path / "tpm.state.good").write_bytes(DAMAGE[kind])
    with pytest.raises(tpm_state.TpmDamagedError, match="of its copy"):
        tpm_state.prove(tmp_path)


def test_a_new_tpm_has_no_copy_until_it_was_used(tmp_path: Path) -> None:
    assert tpm_state.prove(tmp_path) == (b"", None)
    tpm_state.prepare(tmp_path)
    began, restored = tpm_state.prove(tmp_path)
    tpm_state.keep(tmp_path, began)
    assert (began, restored) == (b"", None)
    assert [path.name for path in tmp_path.iterdir()] == ["tpm.state"]
    assert not tpm_state.go_back(tmp_path)


def test_a_state_that_was_not_taken_gives_way_once(tmp_path: Path) -> None:
    tpm_state.keep(tmp_path, WHOLE)
    torn = WHOLE[:1000] + bytes(len(WHOLE) - 1000)
    (tmp_path / "tpm.state").write_bytes(torn)
    assert tpm_state.go_back(tmp_path)
    assert (tmp_path / "tpm.state").read_bytes() == WHOLE
    assert (tmp_path / "tpm.state.damaged").read_bytes() == torn
    assert not tpm_state.go_back(tmp_path)


def test_another_state_voids_the_copy_of_the_former(tmp_path: Path) -> None:
    """A VM that went back to a snapshot must not get the TPM of after it."""
    vm, snapshot, none = (tmp_path / name for name in ("vm", "snapshot", "none"))
    for folder in (vm, snapshot, none):
        folder.mkdir()
    older = tpm_state.encode({"permall": SAMPLE, "savestate": SAMPLE})
    (snapshot / "tpm.state").write_bytes(older)
    puts: list[Callable[[], None]] = [
        lambda: tpm_state.copy(snapshot, vm),
        lambda: tpm_state.copy(none, vm),
        lambda: tpm_state.write(vm, {"permall": SAMPLE}),
    ]
    for put in puts:
        tpm_state.keep(vm, WHOLE)
        put()
        assert not (vm / "tpm.state.good").exists()
