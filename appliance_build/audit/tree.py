"""The tree under audit: its paths, its ELF files, and the manifest it is held against."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance_build.closure.elf_file import ElfFile, is_elf, read_elf
from appliance_build.closure.manifest import Manifest
from appliance_build.closure.plan import Origin
from appliance_build.closure.trees import Layer, Trees

__all__ = ["AuditTree", "Finding", "Node", "Rule"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One fault: the rule that was broken, the file, and what is wrong."""

    rule: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.path}: {self.message}"


@dataclass(frozen=True, slots=True)
class Node:
    """One path of the tree, as ``lstat`` reports it."""

    path: str
    source: Path
    mode: int

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is an ordinary file."""
        return stat.S_ISREG(self.mode)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    def head(self, size: int = 256) -> bytes:
        """The first bytes of the file."""
        with self.source.open("rb") as stream:
            return stream.read(size)


class AuditTree:
    """A finished tree and its manifest."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self.trees = Trees([Layer(Origin.DONOR, root)])

    @functools.cached_property
    def nodes(self) -> list[Node]:
        """Every path of the tree but the root itself, sorted."""
        return sorted(self._walk(self.root), key=lambda node: node.path)

    @functools.cached_property
    def files(self) -> list[Node]:
        return [node for node in self.nodes if node.is_file]

    @functools.cached_property
    def elf_files(self) -> dict[str, ElfFile]:
        """The programs and libraries that the host loads, by path.

        What guests or cards run (``/usr/share``, ``/usr/lib/firmware``) and kernel modules are
        not among them.
        """
        return {
            node.path: read_elf(node.source)
            for node in self.files
            if not node.path.startswith(("/usr/share/", "/usr/lib/firmware/", "/usr/lib/modules/"))
            and is_elf(node.source)
        }

    def _walk(self, directory: Path) -> Iterator[Node]:
        for entry in os.scandir(directory):
            path = Path(entry.path)
            info = entry.stat(follow_symlinks=False)
            yield Node("/" + str(path.relative_to(self.root)), path, info.st_mode)
            if stat.S_ISDIR(info.st_mode):
                yield from self._walk(path)


Rule = Callable[[AuditTree], Iterator[Finding]]
