"""Runs of a disk from several points of a chain, laid over each other.

Pure; offsets and lengths are in bytes, and lists are sorted and free of overlaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Run", "clipped", "overlay"]


class Run(NamedTuple):
    """Bytes of a disk, and which source has them."""

    offset: int
    length: int
    zero: bool
    source: int

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.length


def overlay(base: Sequence[Run], newer: Sequence[Run]) -> list[Run]:
    """`newer`, and of `base` what `newer` doesn't cover."""
    kept: list[Run] = []
    at = 0
    for run in base:
        start = run.offset
        while at < len(newer) and newer[at].end <= start:
            at += 1
        look = at
        while start < run.end:
            if look == len(newer) or newer[look].offset >= run.end:
                kept.append(run._replace(offset=start, length=run.end - start))
                break
            cover = newer[look]
            if cover.offset > start:
                kept.append(run._replace(offset=start, length=cover.offset - start))
            start = max(start, cover.end)
            look += 1
    return sorted([*newer, *kept])


def clipped(runs: Iterable[Run], size_bytes: int) -> list[Run]:
    """The runs without what is beyond the end of a disk, which may have shrunk since."""
    return [
        run._replace(length=min(run.length, size_bytes - run.offset))
        for run in runs
        if run.offset < size_bytes
    ]
