"""Tables and named lines as text: aligned columns for terminals and pipes alike.

A line is never folded. If a terminal is too narrow, the widest columns of free text are cut; ids
(the first column) and columns that are narrow anyway stay whole. Pipes, files and `-o wide` get
everything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

__all__ = ["column_name", "fitted", "sort_key", "table_lines", "width_of"]

_GAP = "  "
_LEAST_WIDTH = 8
"""A column is not cut below this: less says nothing any more."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(?: (B|KiB|MiB|GiB|TiB|%|s))?\b")
_FACTORS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def column_name(title: str) -> str:
    """A column's title as `--columns` and `--sort` take it."""
    return title.lower().replace(" ", "-")


def table_lines(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    headers: bool,
    most: int | None,
    ellipsis: str = "...",
) -> list[str]:
    """The lines of a table; cut to a terminal of `most` columns if one is given."""
    shown = [list(titles), *rows] if headers else [*rows]
    widths = [max((width_of(row[at]) for row in shown), default=0) for at in range(len(titles))]
    if most is not None:
        least = [width_of(title) if headers else 0 for title in titles]
        widths = fitted(widths, least, most)
    return [_line(row, widths, ellipsis) for row in shown]


def fitted(widths: Sequence[int], least: Sequence[int], most: int) -> list[int]:
    """Widths of columns that fit a terminal, as far as the first column and the narrow ones let
    them."""
    found = list(widths)
    floors = [max(each, _LEAST_WIDTH) for each in least]
    while (over := sum(found) + len(_GAP) * (len(found) - 1) - most) > 0:
        loose = [at for at in range(1, len(found)) if found[at] > floors[at]]
        if not loose:
            break
        widest = max(loose, key=lambda at: found[at])
        others = max((found[at] for at in loose if at != widest), default=0)
        target = max(floors[widest], found[widest] - over, min(others, found[widest] - 1))
        found[widest] = target
    return found


def sort_key(text: str) -> tuple[int, float, str]:
    """What a cell is sorted by: numbers and sizes by value, then text; `-` (nothing) comes last."""
    if text == "-":
        return (2, 0.0, "")
    if found := _SIZE.match(text):
        return (0, float(found[1]) * _FACTORS.get(found[2] or "", 1), text)
    return (1, 0.0, text.casefold())


def _line(row: Sequence[str], widths: Sequence[int], ellipsis: str) -> str:
    cells = [_cell(text, width, ellipsis) for text, width in zip(row, widths, strict=True)]
    return _GAP.join(cells).rstrip()


def _cell(text: str, width: int, ellipsis: str) -> str:
    if width_of(text) > width:
        kept = ""
        for one in text:
            if width_of(kept + one) > width - len(ellipsis):
                break
            kept += one
        text = kept + ellipsis
    return text + " " * (width - width_of(text))
