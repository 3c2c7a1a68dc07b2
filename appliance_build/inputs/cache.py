"""The cache outside the checkout: its place, and whether a tree in it is still sound.

A tree gets a stamp beside it (never in it) with two digests. The *shape* (path, kind, size, times,
inode of every entry) is compared on each use, which takes well under a second. If it differs, as
after a restore from a backup, the *content* digest decides; a tree that fails both is deleted and
made again. Python's byte code is left out: it is written while a tree is used.
"""

import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance_build.progress import say

__all__ = ["cache_root", "locked", "mark_tree", "remove_tree", "tree_is_sound"]


def cache_root() -> Path:
    """Return (and make) the cache folder: ``$MICA_CACHE`` or ``~/.cache/mica``."""
    named = os.environ.get("MICA_CACHE")
    root = Path(named) if named else Path.home() / ".cache" / "mica"
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep other builds out of one part of the cache."""
    path = cache_root() / f".{name}.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another build that is making the {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _entries(tree: Path) -> Iterator[tuple[str, os.stat_result, Path]]:
    for folder, folders, files in os.walk(tree):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted([*folders, *files]):
            path = Path(folder) / name
            yield str(path.relative_to(tree)), path.lstat(), path


def _shape(tree: Path) -> str:
    digest = hashlib.sha256()
    for name, info, _ in _entries(tree):
        times = (info.st_mtime_ns, info.st_ctime_ns) if not stat.S_ISDIR(info.st_mode) else ()
        size = info.st_size if not stat.S_ISDIR(info.st_mode) else 0
        digest.update(repr((name, info.st_mode, size, info.st_ino, times)).encode())
    return digest.hexdigest()


def _content(tree: Path) -> str:
    digest = hashlib.sha256()
    for name, info, path in _entries(tree):
        body = ""
        if stat.S_ISLNK(info.st_mode):
            body = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            with path.open("rb") as file:
                body = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(repr((name, info.st_mode, info.st_uid, info.st_gid, body)).encode())
    return digest.hexdigest()


def _stamp(tree: Path) -> Path:
    return tree.with_name(tree.name + ".stamp")


def mark_tree(tree: Path) -> None:
    """Write the stamp of a finished tree, after its data reached the disk."""
    os.sync()
    text = json.dumps({"shape": _shape(tree), "content": _content(tree)})
    temporary = _stamp(tree).with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(_stamp(tree))


def tree_is_sound(tree: Path) -> bool:
    """Return whether a tree is complete and unchanged since :func:`mark_tree`."""
    try:
        stamp = json.loads(_stamp(tree).read_text())
        if not tree.is_dir():
            return False
        if stamp["shape"] == _shape(tree):
            return True
        say(f"{tree.name} in the cache was touched; comparing its content")
        if stamp["content"] != _content(tree):
            say(f"{tree.name} in the cache is damaged; making it again")
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    mark_tree(tree)
    return True


def remove_tree(tree: Path) -> None:
    """Remove a tree and its stamp, stamp first."""
    _stamp(tree).unlink(missing_ok=True)
    if tree.exists():
        shutil.rmtree(tree)
