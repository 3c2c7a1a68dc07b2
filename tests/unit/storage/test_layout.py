"""Files and their descriptions, with a crash after each step."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.unit.storage.samples import iso
from vmkernel.host import files
from vmkernel.model import ImageFormat, VolumeFormat
from vmkernel.storage import layout as layout_module
from vmkernel.storage.catalogue import load
from vmkernel.storage.layout import Layout
from vmkernel.storage.records import ImageRecord, Marker, RecordError, VolumeRecord, decode, encode

RECORD = VolumeRecord(
    id="v", created_at="2026-01-01T00:00:00Z", revision=3, format=VolumeFormat.RAW
)


class CrashError(Exception):
    """The power is gone."""


def _opened(root: Path) -> Layout:
    layout = Layout(root)
    if layout.read_marker() is None:
        layout.initialise()
    layout.open()
    return layout


def _crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the `step`th change of a name (rename, unlink, whole-file write) be the last thing."""
    left = [step]

    def wrap(name: str) -> None:
        inner = getattr(layout_module, name)

        def counted(*args: object, **kwargs: object) -> None:
            if left[0] == 0:
                raise CrashError
            left[0] -= 1
            inner(*args, **kwargs)

        monkeypatch.setattr(layout_module, name, counted)

    for name in ("rename_durably", "unlink_durably", "write_durably"):
        wrap(name)


@pytest.mark.parametrize("step", range(4))
def test_a_crash_while_publishing_leaves_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    place = _opened(tmp_path).volume("v", VolumeFormat.RAW)
    place.incoming.write_bytes(bytes(1 << 20))
    with monkeypatch.context() as patched:
        _crash_at(patched, step)
        try:
            place.publish(RECORD)
            finished = True
        except CrashError:
            finished = False
    contents = load(_opened(tmp_path), "d")
    found = [(entry.id, entry.size_bytes, entry.reason) for entry in contents.volumes]
    assert found in ([], [("v", 1 << 20, None)])
    if finished:
        assert found
    assert list((tmp_path / ".incoming").iterdir()) == []
    assert place.data.exists() is bool(found)


def test_room_is_set_aside_and_given_up(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.initialise()
    reserve = tmp_path / "mica-reserve"
    assert reserve.stat().st_blocks * 512 >= 2 << 20
    with layout.reserve():
        assert not reserve.exists()
    assert reserve.stat().st_blocks * 512 >= 2 << 20
    reserve.unlink()
    layout.open()
    assert reserve.exists()


@pytest.mark.parametrize("step", range(4))
def test_a_crash_while_removing_leaves_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    place = _opened(tmp_path).volume("v", VolumeFormat.RAW)
    place.incoming.write_bytes(bytes(1 << 20))
    place.publish(RECORD)
    with monkeypatch.context() as patched:
        _crash_at(patched, step)
        try:
            place.remove()
            finished = True
        except CrashError:
            finished = False
    contents = load(_opened(tmp_path), "d")
    found = [(entry.id, entry.size_bytes, entry.reason) for entry in contents.volumes]
    assert found in ([], [("v", 1 << 20, None)])
    if finished:
        assert not found
    assert list((tmp_path / ".incoming").iterdir()) == []
    assert place.data.exists() is bool(found)


def test_uploads_under_way_are_swept(tmp_path: Path) -> None:
    layout = _opened(tmp_path)
    (layout.incoming / "image-x.iso").write_bytes(b"half")
    (layout.incoming / "folder").mkdir()
    (layout.incoming / "folder/file").write_bytes(b"x")
    (layout.incoming / "link").symlink_to("/etc")
    layout.open()
    assert list(layout.incoming.iterdir()) == []
    assert Path("/etc").is_dir()


@pytest.mark.parametrize(
    "folder", [".", "vms", "vms/web", "vms/web/snapshots/one", "volumes", "images", "uploads"]
)
def test_what_a_kill_left_half_written_is_swept(tmp_path: Path, folder: str) -> None:
    """Whatever was to take its place; what is being written now stays."""
    layout = _opened(tmp_path)
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    old, new, other = place / ".tmp-vm.json-1", place / ".tmp-vm.json-2", place / "vm.txt"
    for path in (old, new, other):
        path.write_bytes(b"{")
    for path in (old, other):
        os.utime(path, (1, 1))
    layout.open()
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    layout = _opened(tmp_path / "d")
    layout.volumes.rmdir()
    (tmp_path / "elsewhere").mkdir()
    layout.volumes.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="not a folder"):
        layout.open()


def test_a_description_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    layout = _opened(tmp_path)
    (tmp_path / "secret").write_bytes(encode(RECORD))
    (layout.volumes / "v.json").symlink_to(tmp_path / "secret")
    (entry,) = load(layout, "d").volumes
    assert entry.record is None
    assert entry.reason is not None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a valid description"),
        (b"{}", "not a valid description"),
        (b"[1]", "not a valid description"),
        (b'{"schema": 99}', "schema 99"),
        (b'{"schema": "1"}', "schema '1'"),
        (encode(RECORD).replace(b'"revision"', b'"surprise"'), "not a valid description"),
        (encode(RECORD).replace(b'"v"', b'"other"'), "is of other"),
        (b" " * (2 << 20), "can't be read"),
    ],
)
def test_one_broken_description_makes_that_volume_alone_unusable(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    layout = _opened(tmp_path)
    for name in ("good", "v"):
        place = layout.volume(name, VolumeFormat.RAW)
        place.incoming.write_bytes(bytes(1 << 20))
        record = decode(VolumeRecord, encode(RECORD).replace(b'"v"', f'"{name}"'.encode()))
        place.publish(record)
    (layout.volumes / "v.json").write_bytes(content)
    good, broken = load(layout, "d").volumes
    assert (good.id, good.reason) == ("good", None)
    assert broken.id == "v"
    assert broken.format is VolumeFormat.RAW
    assert broken.reason is not None
    assert reason in broken.reason


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    layout = _opened(tmp_path)
    layout.volume("v", VolumeFormat.RAW).describe(RECORD)
    image = ImageRecord(
        id="i",
        created_at="2026-01-01T00:00:00Z",
        format=ImageFormat.ISO,
        size_bytes=1 << 16,
        sha256="0" * 64,
        virtual_size_bytes=1 << 16,
    )
    layout.image("i", ImageFormat.ISO).describe(image)
    contents = load(layout, "d")
    assert [entry.reason for entry in contents.volumes] == ["its file is missing"]
    assert contents.images[0].reason is not None
    layout.image("i", ImageFormat.ISO).data.write_bytes(iso())
    assert load(layout, "d").images[0].reason is None


def test_files_with_names_that_are_no_ids_are_left_alone(tmp_path: Path) -> None:
    layout = _opened(tmp_path)
    for name in ("UPPER.json", "-x.json", "a b.json", ".hidden.json", "x.txt"):
        (layout.volumes / name).write_bytes(b"{}")
    assert load(layout, "d").volumes == []


def test_the_marker_says_which_datastore_it_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.read_marker() is None
    assert layout.empty()
    marker = layout.initialise()
    assert not layout.empty()
    assert layout.read_marker() == marker
    assert decode(Marker, encode(marker)) == marker
    (tmp_path / "mica-datastore.json").write_bytes(b"{")
    with pytest.raises(RecordError):
        layout.read_marker()


def test_a_durable_write_replaces_the_whole_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    files.write_durably(path, b"old", mode=0o640)
    assert path.stat().st_mode & 0o777 == 0o640

    def full(_: int, __: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            files.write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_data_that_are_no_file_are_not_followed(tmp_path: Path, kind: str) -> None:
    """A datastore of anybody's could show a VM, or a download, any file of this host by a link."""
    layout = _opened(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1 << 20))
    for volume_format in VolumeFormat:
        place = layout.volume(volume_format.value, volume_format)
        place.describe(replace(RECORD, id=volume_format.value, format=volume_format))
        place.data.symlink_to(secret) if kind == "link" else os.mkfifo(place.data)
    place = layout.image("i", ImageFormat.RAW)
    place.data.symlink_to(secret) if kind == "link" else os.mkfifo(place.data)
    place.describe(
        ImageRecord(
            id="i",
            created_at="2026-01-01T00:00:00Z",
            format=ImageFormat.RAW,
            size_bytes=place.data.lstat().st_size,
            sha256="0" * 64,
            virtual_size_bytes=1 << 20,
        )
    )
    found = load(layout, "main")
    assert [v.id for v in found.volumes] == ["qcow2", "raw"]
    assert all(volume.reason for volume in found.volumes)
    assert all(image.reason for image in found.images)
