"""The release's version (from ``vmkernel/version.py``) and the time stamp of built files."""

import ast
from pathlib import Path

__all__ = ["REPOSITORY", "SOURCE_DATE_EPOCH", "release_version"]

REPOSITORY = Path(__file__).resolve().parents[2]

SOURCE_DATE_EPOCH = 1_767_225_600
"""2026-01-01 00:00 UTC. Fixed, so that the same inputs give the same bits whenever built."""


def release_version() -> str:
    """Return the version, read without importing the package."""
    tree = ast.parse((REPOSITORY / "vmkernel/version.py").read_text())
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant(value=str(v))):
                return v
            case ast.AnnAssign(target=ast.Name(id="__version__"), value=ast.Constant(value=str(v))):
                return v
    raise ValueError("vmkernel/version.py assigns no __version__")
