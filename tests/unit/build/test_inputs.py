"""Locks, the archive of packages, and the soundness of cached trees."""

from __future__ import annotations

import hashlib
import os
import urllib.error
from pathlib import Path

import pytest

from appliance_build.inputs import cache
from appliance_build.inputs.archive import fetch_all
from appliance_build.inputs.debian_lock import DebianLock, LockedPackage, differences
from appliance_build.inputs.debian_sets import load_sets
from appliance_build.inputs.errors import GoneError, HashError, LockError, MirrorError
from appliance_build.inputs.locked_set import LOCK_FILE, WISHES_FILE
from appliance_build.inputs.mirror import Mirrors

MIRRORS = Mirrors("http://mirror.example/debian", "http://mirror.example/debian-security")


def package(name: str, version: str = "1", content: bytes = b"deb") -> LockedPackage:
    digest = hashlib.sha256(content).hexdigest()
    return LockedPackage(name, version, "amd64", "debian", f"pool/{name}", len(content), digest)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror that is a folder; what is not in it is answered with 404."""
    folder = tmp_path / "mirror"
    (folder / "pool").mkdir(parents=True)

    def urlopen(url: str, timeout: float) -> object:
        path = folder / url.removeprefix(MIRRORS.debian + "/")
        if not path.exists():
            raise urllib.error.HTTPError(url, 404, "gone", {}, None)  # type: ignore[arg-type]
        return path.open("rb")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return folder


def test_the_lock_survives_writing_and_reading(tmp_path: Path) -> None:
    lock = DebianLock({"tools": (package("b"), package("a"))})
    path = tmp_path / "lock.json"
    path.write_text(lock.text())
    again = DebianLock.load(path)
    assert again.sets["tools"] == (package("a"), package("b"))
    assert again.text() == lock.text()
    assert again.digest("tools") == lock.digest("tools")


def test_the_digest_changes_with_a_package() -> None:
    one = DebianLock({"tools": (package("a", "1"),)})
    two = DebianLock({"tools": (package("a", "2"),)})
    assert one.digest("tools") != two.digest("tools")


def test_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_text('{"schema": 99, "sets": {}}')
    with pytest.raises(LockError, match="schema 99"):
        DebianLock.load(path)


def test_differences_name_what_came_went_and_changed() -> None:
    old = (package("a", "1"), package("b", "1"), package("c", "1"))
    new = (package("a", "1"), package("b", "2"), package("d", "1"))
    assert differences(old, new) == [("b", "1", "2"), ("c", "1", "-"), ("d", "-", "1")]


def test_the_committed_lock_answers_the_committed_wishes() -> None:
    import json

    lock, wishes = DebianLock.load(LOCK_FILE), json.loads(WISHES_FILE.read_text())
    for name, wanted in load_sets().items():
        assert wishes[name] == wanted.digest(), f"debian.toml changed: scons lock ({name})"
        asked = {text.split("/")[0] for text in wanted.packages}
        assert asked <= {locked.name for locked in lock.sets[name]}


def test_a_package_is_fetched_once_and_then_kept(mirror: Path) -> None:
    wanted = package("a")
    (mirror / "pool/a").write_bytes(b"deb")
    first = fetch_all([wanted], MIRRORS)[wanted]
    (mirror / "pool/a").unlink()
    assert fetch_all([wanted], MIRRORS)[wanted] == first
    assert first.read_bytes() == b"deb"


def test_what_has_left_the_mirror_is_named_all_at_once(mirror: Path) -> None:
    with pytest.raises(GoneError, match="a 1, b 7"):
        fetch_all([package("a"), package("b", "7")], MIRRORS)


def test_a_wrong_package_is_refused_and_not_kept(mirror: Path) -> None:
    (mirror / "pool/a").write_bytes(b"bad")
    with pytest.raises(MirrorError, match="SHA-256") as error:
        fetch_all([package("a")], MIRRORS)
    assert isinstance(error.value.__cause__, HashError)
    (mirror / "pool/a").write_bytes(b"deb")
    assert fetch_all([package("a")], MIRRORS)


def test_a_damaged_package_in_the_archive_is_fetched_again(mirror: Path) -> None:
    (mirror / "pool/a").write_bytes(b"deb")
    place = fetch_all([package("a")], MIRRORS)[package("a")]
    place.write_bytes(b"dXb")
    assert fetch_all([package("a")], MIRRORS)[package("a")].read_bytes() == b"deb"


def _tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/tool").write_text("one")
    (tree / "link").symlink_to("bin/tool")
    cache.mark_tree(tree)
    return tree


def test_an_untouched_tree_is_sound(tmp_path: Path) -> None:
    assert cache.tree_is_sound(_tree(tmp_path))


def test_a_tree_without_stamp_is_not(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    assert not cache.tree_is_sound(tree)


@pytest.mark.parametrize("damage", ["content", "missing", "more", "link"])
def test_a_damaged_tree_is_not_sound(tmp_path: Path, damage: str) -> None:
    tree = _tree(tmp_path)
    if damage == "content":
        (tree / "bin/tool").write_text("two")
    elif damage == "missing":
        (tree / "bin/tool").unlink()
    elif damage == "more":
        (tree / "bin/other").write_text("")
    else:
        (tree / "link").unlink()
        (tree / "link").symlink_to("elsewhere")
    assert not cache.tree_is_sound(tree)


def test_a_restored_tree_with_other_times_is_sound(tmp_path: Path) -> None:
    tree = _tree(tmp_path)
    os.utime(tree / "bin/tool", (1, 1))
    assert cache.tree_is_sound(tree)


def test_byte_code_does_not_count(tmp_path: Path) -> None:
    tree = _tree(tmp_path)
    (tree / "bin/__pycache__").mkdir()
    (tree / "bin/__pycache__/tool.pyc").write_text("x")
    assert cache.tree_is_sound(tree)
