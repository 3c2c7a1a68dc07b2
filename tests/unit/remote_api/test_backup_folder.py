"""A folder of backups: runs laid over each other, points that are merged, commands cut off."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_api.client.backup.extents import Run, clipped, overlay
from remote_api.client.backup.folder import BackupFolder, DiskPart, Point, read_part
from remote_api.client.errors import ConflictError
from vmkernel.model import BackupExtent, VolumeFormat

SIZE = 64


@st.composite
def runs(draw: st.DrawFn, source: int) -> list[Run]:
    """Sorted runs without overlaps within a disk of SIZE bytes."""
    edges = sorted(draw(st.sets(st.integers(0, SIZE), max_size=10)))
    pairs = zip(edges[::2], edges[1::2], strict=False)
    return [Run(a, b - a, draw(st.booleans()), source) for a, b in pairs]


def _painted(layers: list[list[Run]]) -> list[int | None]:
    """Per byte the source that has it last, negative where it is zero."""
    disk: list[int | None] = [None] * SIZE
    for layer in layers:
        for run in layer:
            for at in range(run.offset, run.end):
                disk[at] = -1 if run.zero else run.source
    return disk


@given(runs(1), runs(2), runs(3), st.integers(0, SIZE))
def test_the_newest_run_wins_everywhere(
    first: list[Run], second: list[Run], third: list[Run], size: int
) -> None:
    merged = overlay(overlay(first, second), third)
    assert merged == sorted(merged)
    assert all(a.end <= b.offset for a, b in itertools.pairwise(merged))
    assert _painted([merged]) == _painted([first, second, third])
    assert _painted([clipped(merged, size)])[:size] == _painted([merged])[:size]
    assert all(run.end <= size and run.length > 0 for run in clipped(merged, size))


def _add(folder: BackupFolder, number: int, parts: dict[int, bytes | int], size: int = 64) -> Point:
    """A point with bytes, or a number of zeros, at offsets."""
    name = f"{number:04}-disk0.raw"
    digest = hashlib.sha256()
    extents = []
    with folder.create(name) as file:
        for offset, part in sorted(parts.items()):
            if isinstance(part, bytes):
                file.seek(offset)
                file.write(part)
                digest.update(part)
            length = part if isinstance(part, int) else len(part)
            extents.append(BackupExtent(offset=offset, length=length, zero=isinstance(part, int)))
        file.truncate(size)
    point = Point(
        vm="web",
        created_at="2026-01-01T00:00:00Z",
        checkpoint=f"b{number}",
        since=None if number == 1 else f"b{number - 1}",
        quiet=True,
        disks=(
            DiskPart(
                key="disk0",
                volume="web-disk0",
                size_bytes=size,
                format=VolumeFormat.QCOW2,
                file=name,
                extents=tuple(extents),
                sha256=digest.hexdigest(),
            ),
        ),
        saved=folder.keep_vm(number, b'{"spec": {}, "machine": {}}'),
    )
    folder.keep(number, point)
    return point


@pytest.fixture
def folder(tmp_path: Path) -> BackupFolder:
    folder = BackupFolder(tmp_path / "chain")
    with folder.changing():
        _add(folder, 1, {0: b"a" * 32})
        _add(folder, 2, {8: b"b" * 8, 24: 4})
        _add(folder, 3, {12: b"c" * 30}, size=48)
        _add(folder, 4, {0: 2}, size=40)
    return folder


def _content(folder: BackupFolder, number: int) -> bytes:
    number, chain = folder.chosen(number)
    folder.verify_points(chain)
    found, files = folder.disk(chain, "disk0")
    disk = bytearray(chain[number].disks[0].size_bytes)
    for run in found:
        if not run.zero:
            with files[run.source].open("rb") as file:
                disk[run.offset : run.end] = b"".join(read_part(file, run.offset, run.length))
    return bytes(disk)


def test_points_are_their_instants(folder: BackupFolder) -> None:
    assert _content(folder, 1) == b"a" * 32 + bytes(32)
    assert _content(folder, 2) == b"a" * 8 + b"b" * 8 + b"a" * 8 + bytes(4) + b"a" * 4 + bytes(32)
    assert _content(folder, 4) == bytes(2) + b"a" * 6 + b"b" * 4 + b"c" * 28
    with pytest.raises(ConflictError, match="no point 7; it has 1, 2, 3, 4"):
        folder.chosen(7)


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 9])
def test_what_stays_can_be_restored_after_pruning(folder: BackupFolder, keep: int) -> None:
    before = {number: _content(folder, number) for number in (1, 2, 3, 4)}
    gone = folder.prune(keep)
    assert gone == list(range(1, max(0, 4 - keep) + 1))
    stay = [number for number in before if number not in gone]
    assert list(folder.points()) == stay
    assert {number: _content(folder, number) for number in stay} == {n: before[n] for n in stay}
    named = {name for point in folder.points().values() for name in point.files}
    left = {path.name for path in folder.path.iterdir()}
    assert left == named | {f"{number:04}.json" for number in stay} | {".lock"}


def test_pruning_that_is_cut_off_loses_no_point_that_stays(
    folder: BackupFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _content(folder, 4)
    steps = 0

    def cut_off_after(limit: int) -> None:
        nonlocal steps
        steps = 0

        def stop(*_: object) -> None:
            nonlocal steps
            steps += 1
            if steps > limit:
                raise KeyboardInterrupt

        for name in ("replace", "unlink"):
            real = getattr(Path, name)

            def step(self: Path, *args: object, real: object = real, **options: object) -> object:
                stop()
                return real(self, *args, **options)  # type: ignore[operator]

            monkeypatch.setattr(Path, name, step)

    for limit in range(12):
        cut_off_after(limit)
        with contextlib.suppress(KeyboardInterrupt):
            folder.prune(1)
        monkeypatch.undo()
        folder.verify()
        assert _content(folder, 4) == wanted
    folder.prune(1)
    assert list(folder.points()) == [4]
    assert _content(folder, 4) == wanted


def test_a_damaged_file_stops_pruning_before_anything_is_removed(folder: BackupFolder) -> None:
    (folder.path / "0001-disk0.raw").write_bytes(b"x" * 64)
    with pytest.raises(ConflictError, match=r"0001-disk0\.raw is damaged"):
        folder.prune(1)
    assert list(folder.points()) == [1, 2, 3, 4]


def test_a_damaged_vm_is_found(folder: BackupFolder) -> None:
    (folder.path / "0003-vm.json").write_bytes(b"{}")
    with pytest.raises(ConflictError, match=r"0003-vm\.json is damaged"):
        folder.verify()


def test_leftovers_go_and_other_files_stay(folder: BackupFolder) -> None:
    (folder.path / "0005-disk0.raw").write_bytes(b"half")
    (folder.path / "notes.txt").write_text("mine")
    with folder.changing():
        pass
    assert not (folder.path / "0005-disk0.raw").exists()
    assert (folder.path / "notes.txt").exists()


def test_one_command_at_a_time(folder: BackupFolder) -> None:
    with (
        folder.changing(),
        pytest.raises(ConflictError, match="is in use by another command"),
        BackupFolder(folder.path).changing(),
    ):
        pass


def test_only_its_owner_reads_it(folder: BackupFolder) -> None:
    for name in ("0001-disk0.raw", "0001-vm.json", "0001.json"):
        assert (folder.path / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "0001.json"])
def test_a_point_names_no_file_elsewhere(folder: BackupFolder, name: str) -> None:
    text = (folder.path / "0001.json").read_text()
    (folder.path / "0001.json").write_text(text.replace("0001-disk0.raw", name))
    with pytest.raises(ConflictError, match="refers to a file outside"):
        folder.points()


def test_points_of_the_first_schema_are_read(folder: BackupFolder) -> None:
    document = (folder.path / "0001.json").read_text()
    start = document.index('"saved"')
    end = document.index("}", start) + 1
    older = document[:start].rstrip().rstrip(",") + document[end:]
    (folder.path / "0001.json").write_text(older.replace('"schema": 2', '"schema": 1'))
    point = folder.points()[1]
    assert point.saved is None
    assert _content(folder, 4)
    with pytest.raises(ConflictError, match="--prefix"):
        folder.saved_vm(point)


def test_a_folder_that_is_not_there_has_no_points(tmp_path: Path) -> None:
    assert BackupFolder(tmp_path / "none").points() == {}
    with pytest.raises(ConflictError, match="contains no backup"):
        BackupFolder(tmp_path / "none").verify()


def test_numbers_go_on_after_pruning(folder: BackupFolder) -> None:
    folder.prune(1)
    with folder.changing():
        _add(folder, 5, {0: os.urandom(4)}, size=40)
    assert list(folder.points()) == [4, 5]
    assert len(_content(folder, 5)) == 40
