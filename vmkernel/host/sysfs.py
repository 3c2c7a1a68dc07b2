"""Careful reads of small files in /sys and /proc.

Every function takes the folder that it reads, so that tests can use a made-up tree.
"""

from __future__ import annotations

import os
from pathlib import Path

from vmkernel.text import clean_lines

__all__ = ["DEV", "PROC", "SYS", "link_name", "read_int", "read_text", "subfolders"]

SYS = Path("/sys")
PROC = Path("/proc")
DEV = Path("/dev")


def read_text(path: Path) -> str | None:
    """A small file's text without surrounding white space; None if it can't be read."""
    try:
        text = path.read_bytes().decode(errors="replace").strip("\0 \t\r\n")
    except OSError:
        return None
    return clean_lines(text)  # some of it is what a device says of itself


def read_int(path: Path, base: int = 10) -> int | None:
    """A number; None if there is none."""
    text = read_text(path)
    try:
        return int(text, base) if text else None
    except ValueError:
        return None


def link_name(path: Path) -> str | None:
    """The last part of a symbolic link's target, such as a device's driver."""
    try:
        return path.readlink().name
    except OSError:
        return None


def subfolders(path: Path) -> tuple[str, ...]:
    """The sorted names of subfolders; empty if there is no such folder."""
    try:
        return tuple(sorted(os.listdir(path)))  # noqa: PTH208 - names are what is wanted
    except OSError:
        return ()
