"""The repository's own files, and its Python modules as syntax trees."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Module", "PACKAGES", "REPOSITORY", "modules", "tracked_files"]

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("appliance_build", "firmware", "remote_api", "tests", "vmkernel")


@dataclass(frozen=True)
class Module:
    """One Python file."""

    name: str
    """Dotted; a package's is that of the folder."""
    path: Path
    tree: ast.Module

    @property
    def shown(self) -> str:
        """The path as messages name it."""
        return str(self.path.relative_to(REPOSITORY))

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and absolute name of everything imported; `from a import b` gives `a.b`."""
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                parts = package.split(".")
                start = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
                base = ".".join(part for part in (start, node.module or "") if part)
                for alias in node.names:
                    yield node.lineno, f"{base}.{alias.name}"


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the five packages."""
    found = []
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = list(path.relative_to(REPOSITORY).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            found.append(Module(".".join(parts), path, ast.parse(path.read_text(), str(path))))
    return tuple(found)


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file that git knows and that is there."""
    listed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "-z"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    paths = [REPOSITORY / name for name in listed.split("\0") if name]
    return tuple(path for path in paths if path.is_file())
