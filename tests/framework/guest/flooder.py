"""The hostile guest (flooder/main.c): a disk of a few sectors that a BIOS starts from IDE."""

from __future__ import annotations

from pathlib import Path

from tests.framework.guest.old_pc import bare_disk

__all__ = ["flooder_disk"]

SOURCES = Path(__file__).parent / "flooder"


def flooder_disk() -> Path:
    """The disk, made now if it is not there yet."""
    return bare_disk("flooder", SOURCES / "main.c")
