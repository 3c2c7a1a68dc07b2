"""What the READMEs say of the tree: the vmkernel's map, its places to come, and paths in prose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.style.sources import REPOSITORY

__all__ = ["VMKERNEL", "exists", "map_of", "places_to_come", "source_paths"]

VMKERNEL = REPOSITORY / "vmkernel"
_CODE = re.compile(r"`([^`\n]+)`")
_SOURCE = re.compile(r"[a-z_]+(/[\w.-]+)*/\w[\w.-]*\.(c|html|js|py|service|toml)")


def _rows(text: str, header: str) -> Iterator[list[str]]:
    """The cells of the rows of the table below a header line."""
    lines = iter(text.splitlines())
    for line in lines:
        if line == header:
            next(lines)
            break
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def map_of(text: str) -> set[str]:
    """The packages (`a/`, `a/b/`) and modules (`a.py`) that a README's map names.

    The first cell of a row has the folders and modules of the top; a folder in the second one is
    below the row's folder.
    """
    found: set[str] = set()
    for first, second in _rows(text, "| folder | what it owns |"):
        tops = _CODE.findall(first)
        found.update(tops)
        below = [name for name in _CODE.findall(second) if name.endswith("/")]
        found.update(f"{tops[0]}{name}" for name in below)
    return found


def places_to_come(text: str) -> set[str]:
    """The places that are drawn before they are there, from the repository's root."""
    header = "| place | what goes there | may import | who calls it |"
    return {name for row in _rows(text, header) for name in _CODE.findall(row[0])}


def source_paths(text: str) -> set[str]:
    """The source files that prose names with a folder."""
    return {name for name in _CODE.findall(text) if _SOURCE.fullmatch(name)}


def exists(path: str, readme: Path) -> bool:
    """True if a path of a README is there: from its own folder, the root, or a package."""
    roots = (readme.parent, REPOSITORY, VMKERNEL, REPOSITORY / "remote_api")
    return any((root / path).exists() for root in roots)
