"""The input trees seen as one root directory, with symbolic links followed inside it.

A path of the image is looked up in the overlays first, then in the wheels and our own
packages (both appear under :data:`PYTHON_SITE`), then in the donors. Links are resolved
against the union, never against the build machine's own root.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance_build.closure.errors import LinkLoopError
from appliance_build.closure.plan import Origin

__all__ = ["Layer", "PYTHON_SITE", "Resolved", "Trees", "glob_prefix"]

PYTHON_SITE = "/usr/lib/mica/python"
_MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class Layer:
    """One input tree: files below `base` appear in the image below `mount`."""

    origin: Origin
    base: Path
    mount: str = ""
    only: frozenset[str] | None = None  # the top-level names taken, where not all are

    def locate(self, path: str) -> Path | None:
        """The file on the build machine for the image's `path`, if this layer could hold it."""
        if self.mount:
            if path == self.mount or self.mount.startswith(path.rstrip("/") + "/"):
                return self.base  # the directories on the way to the mount
            if not path.startswith(self.mount + "/"):
                return None
            path = path[len(self.mount) :]
        inner = path.lstrip("/")
        if self.only is not None and inner.split("/", 1)[0] not in self.only:
            return None
        return self.base / inner


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a path leads: the links passed on the way, and the last path itself."""

    path: str
    source: Path
    layer: Layer
    links: tuple[tuple[str, str, Path, Layer], ...]  # (path, target, source, layer)
    is_dir: bool


class Trees:
    """The union of the input trees."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers
        self._lstat: dict[str, tuple[Path, Layer, os.stat_result] | None] = {}

    def lookup(self, path: str) -> tuple[Path, Layer, os.stat_result] | None:
        """The topmost layer's own entry at exactly `path` (a canonical path), or None."""
        if path not in self._lstat:
            self._lstat[path] = self._find(path)
        return self._lstat[path]

    def _find(self, path: str) -> tuple[Path, Layer, os.stat_result] | None:
        for layer in self.layers:
            source = layer.locate(path)
            if source is None:
                continue
            try:
                return source, layer, os.lstat(source)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def resolve(self, path: str) -> Resolved | None:
        """Follow `path` through every link (directories' too); None if nothing is there."""
        links: list[tuple[str, str, Path, Layer]] = []
        current = ""
        pending = [part for part in path.split("/") if part and part != "."]
        pending.reverse()
        found: tuple[Path, Layer, os.stat_result] | None = None
        while pending:
            part = pending.pop()
            if part == "..":
                current = posixpath.dirname(current).rstrip("/")
                continue
            candidate = f"{current}/{part}"
            found = self.lookup(candidate)
            if found is None:
                return None
            source, layer, info = found
            if stat.S_ISLNK(info.st_mode):
                target = os.readlink(source)
                links.append((candidate, target, source, layer))
                if len(links) > _MAX_LINKS:
                    raise LinkLoopError(f"{path}: the chain of symbolic links does not end")
                if target.startswith("/"):
                    current = ""
                pending.extend(p for p in reversed(target.split("/")) if p and p != ".")
                continue
            current = candidate
        if not current:
            return None
        found = self.lookup(current)
        if found is None:
            return None
        source, layer, info = found
        return Resolved(current, source, layer, tuple(links), stat.S_ISDIR(info.st_mode))

    def exists(self, path: str) -> bool:
        """Whether `path` leads to something."""
        return self.resolve(path) is not None

    def names(self, directory: str) -> list[str]:
        """The names in `directory` over all layers, sorted."""
        resolved = self.resolve(directory) if directory not in ("", "/") else None
        path = resolved.path if resolved else directory
        path = path.rstrip("/")
        names: set[str] = set()
        for layer in self.layers:
            if layer.mount.startswith(path + "/"):
                names.add(layer.mount[len(path) + 1 :].split("/", 1)[0])
                continue
            source = layer.base if path == layer.mount else layer.locate(path)
            if source is None or not source.is_dir():
                continue
            found = set(os.listdir(source))
            if layer.only is not None and path == layer.mount:
                found &= layer.only
            names |= found
        return sorted(names)

    def walk(self, directory: str) -> Iterator[str]:
        """Every path below `directory` that is no directory, in sorted order."""
        for name in self.names(directory):
            path = f"{directory.rstrip('/')}/{name}"
            found = self.lookup(path)
            if found is not None and stat.S_ISDIR(found[2].st_mode):
                yield from self.walk(path)
            elif found is not None:
                yield path
            else:
                yield from self.walk(path)

    def glob(self, pattern: str) -> list[str]:
        """The paths that match `pattern`; ``**`` matches any number of directories."""
        if not any(char in pattern for char in "*?["):
            return [pattern] if self.lookup_any(pattern) else []
        prefix = glob_prefix(pattern)
        resolved = self.resolve(prefix) if prefix else None
        if prefix and resolved is None:
            return []
        if "**" in pattern:
            return [p for p in self.walk(prefix) if _match(p, pattern)]
        parts = pattern[len(prefix) :].strip("/").split("/")
        found = [prefix]
        for part in parts:
            found = [
                f"{base.rstrip('/')}/{name}"
                for base in found
                for name in self.names(base)
                if fnmatch.fnmatchcase(name, part)
            ]
        return [path for path in found if self.lookup_any(path)]

    def lookup_any(self, path: str) -> bool:
        """Whether something exists at `path`, reached through linked directories or not."""
        if self.lookup(path) is not None:
            return True
        parent = self.resolve(posixpath.dirname(path))
        if parent is None:
            return False
        return self.lookup(f"{parent.path}/{posixpath.basename(path)}") is not None


def glob_prefix(pattern: str) -> str:
    """The part of `pattern` before its first directory with a wildcard."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if any(char in part for char in "*?["):
            break
        parts.append(part)
    return "/".join(parts)


def _match(path: str, pattern: str) -> bool:
    return _match_parts(path.strip("/").split("/"), pattern.strip("/").split("/"))


def _match_parts(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_match_parts(parts[i:], patterns[1:]) for i in range(len(parts) + 1))
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], patterns[0])
        and _match_parts(parts[1:], patterns[1:])
    )
