"""Small trees and searches for the closure's tests."""

from __future__ import annotations

from pathlib import Path

from appliance_build.closure.packages import Wheels
from appliance_build.closure.plan import Origin
from appliance_build.closure.roots import Roots, load_roots
from appliance_build.closure.search import Search
from appliance_build.closure.trees import Layer, Trees

__all__ = ["roots_of", "search_of", "write"]


def write(root: Path, path: str, content: bytes | str = b"", mode: int = 0o644) -> Path:
    """Write one file of a tree."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(mode)
    return file


def roots_of(directory: Path, text: str = "") -> Roots:
    """Roots as `text` says."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sample.toml").write_text(text)
    return load_roots(directory)


def search_of(donor: Path, roots: Roots) -> Search:
    """A search over one donor tree, without rules."""
    trees = Trees([Layer(Origin.DONOR, donor)])
    return Search(trees, roots, [], Wheels(donor / "nothing"))
