"""Pages of the vmkernel's lists as tests make and read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from vmkernel.control.requests import Page, SortValue

__all__ = ["items_of", "page_of"]

ItemT = TypeVar("ItemT")


def page_of(items: Iterable[msgspec.Struct], after: tuple[SortValue, ...] | None = None) -> Page:
    """The vmkernel's answer with these items."""
    return Page(items=b",".join(msgspec.json.encode(item) for item in items), next=after)


def items_of(page: Page, item: type[ItemT]) -> tuple[ItemT, ...]:
    """The items of an answer."""
    found: tuple[ItemT, ...] = msgspec.json.decode(b"[%b]" % page.items, type=tuple[item, ...])  # type: ignore[valid-type]
    return found
