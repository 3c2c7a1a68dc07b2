"""Cuts ordered lists into pages."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["cut"]

ItemT = TypeVar("ItemT")


def cut(
    items: Sequence[ItemT], key: Callable[[ItemT], str], after: str | None, limit: int
) -> tuple[tuple[ItemT, ...], bool]:
    """The items after the key `after`, at most `limit`, and whether others follow.

    `items` must be ordered by `key`; `after` need not exist any more.
    """
    start = 0 if after is None else bisect_right(items, after, key=key)
    return tuple(items[start : start + limit]), len(items) > start + limit
