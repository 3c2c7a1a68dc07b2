"""Answers a list: selects, sorts, cuts and encodes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from vmkernel.control.lists.encoded import EncodedItems, encoded
from vmkernel.control.lists.language import Order, Selection, read_query
from vmkernel.control.lists.paths import SortValue, projected, reader, sort_value, texts_at
from vmkernel.control.requests import ListRequest, Page
from vmkernel.model import ErrorCode, Listing, MicaError

__all__ = ["Fetched", "PAGE_BYTES", "answer", "answer_from", "cut"]

ItemT = TypeVar("ItemT")
Fetched = tuple[Sequence[Any], bool]
Fetch = Callable[[Selection, str | None, int], Awaitable[Fetched]]
"""The items after a key, at most so many, in the list's own order; and whether others follow."""

PAGE_BYTES = 2 << 20
"""Of one page: 1,000 VMs of the usual size are less."""
_ALL = 1 << 30


def cut(
    items: Sequence[ItemT], key: Callable[[ItemT], str], after: str | None, limit: int
) -> tuple[tuple[ItemT, ...], bool]:
    """The items after the key `after`, at most `limit`, and whether others follow.

    `items` must be ordered by `key`; `after` need not exist any more.
    """
    start = 0 if after is None else bisect_right(items, after, key=key)
    return tuple(items[start : start + limit]), len(items) > start + limit


async def answer(
    request: ListRequest,
    fetch: Fetch,
    *,
    shown: Callable[[Any], Any] = lambda item: item,
    kept: EncodedItems | None = None,
) -> Page:
    """The page that a request asks for.

    `shown` removes from an item what must not be shown; `kept` remembers what is encoded.
    Raises MicaError (`invalid`) for what can't be asked for.
    """
    listing = type(request).LISTING
    selection = read_query(listing, request.query)
    after = _checked(request.after, selection)
    key = _key_of(listing)
    if selection.plain:
        last = str(after[-1]) if after else None
        items, more = await fetch(selection, last, request.limit)
    else:
        items, _ = await fetch(selection, None, _ALL)
        items = [item for item in items if selection.takes(shown(item))]
        items = _sorted(items, selection, key)
        start = 0 if after is None else _place(items, after, selection, key)
        more = len(items) > start + request.limit
        items = items[start : start + request.limit]

    def as_json(item: Any) -> bytes | None:
        if selection.part:
            return encoded(projected(shown(item), selection.part))
        return encoded(shown(item)) if kept is None else kept.of(key(item), item, shown)

    data, last_item, cut_short = _joined(items, as_json)
    if not (more or cut_short) or last_item is None:
        return Page(items=data)
    return Page(items=data, next=(*_values(last_item, selection.order), key(last_item)))


async def answer_from(request: ListRequest, items: Sequence[Any]) -> Page:
    """The same of items that are all at hand, in the order of their keys."""

    async def fetch(_: Selection, after: str | None, limit: int) -> Fetched:
        return cut(items, _key_of(type(request).LISTING), after, limit)

    return await answer(request, fetch)


def _joined(
    items: Sequence[Any], as_json: Callable[[Any], bytes | None]
) -> tuple[bytes, Any | None, bool]:
    """As many items as fit, but one at least; the last that was looked at; whether some are left.

    What can't be sent costs itself, not the list.
    """
    parts: list[bytes] = []
    size, last = 0, None
    for item in items:
        part = as_json(item)
        if part is not None:
            if parts and size + len(part) > PAGE_BYTES:
                return b",".join(parts), last, True
            parts.append(part)
            size += len(part) + 1
        last = item
    if items and not parts:
        raise MicaError(ErrorCode.INTERNAL, "None of the items of this page can be sent.")
    return b",".join(parts), last, False


def _checked(
    after: tuple[SortValue, ...] | None, selection: Selection
) -> tuple[SortValue, ...] | None:
    if after is not None and (
        len(after) != len(selection.order) + 1 or not isinstance(after[-1], str)
    ):
        raise MicaError.field("/after", "The place does not belong to this query.")
    return after


def _key_of(listing: Listing) -> Callable[[Any], str]:
    """The key of an item as one text: parts of it are joined by slashes."""
    readers = [reader(path) for path in listing.key]
    if listing.key == ("id",):
        return _id
    return lambda item: "/".join(text for read in readers for text in texts_at(read(item)))


def _id(item: Any) -> str:
    return str(item.id)


def _values(item: Any, order: Sequence[Order]) -> Iterator[SortValue]:
    for each in order:
        yield sort_value(each.read(item))


def _sorted(items: Sequence[Any], selection: Selection, key: Callable[[Any], str]) -> Sequence[Any]:
    """By the columns of the query, and by the key among equals; without any as they come."""
    if not selection.order:
        return items
    ordered = sorted(items, key=key, reverse=selection.listing.newest_first)
    for each in reversed(selection.order):
        ordered.sort(key=lambda item: _rank(sort_value(each.read(item))), reverse=each.descending)
    return ordered


def _rank(value: SortValue) -> tuple[bool, bool, Any]:
    """None is before all others; numbers are before texts, which one column doesn't mix."""
    return (value is not None, isinstance(value, str), value if value is not None else 0)


def _place(
    items: Sequence[Any],
    after: tuple[SortValue, ...],
    selection: Selection,
    key: Callable[[Any], str],
) -> int:
    """The index of the first item behind a place, whose item need not be there any more."""
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        item = items[middle]
        found = (*_values(item, selection.order), key(item))
        if _is_behind(found, after, selection):
            high = middle
        else:
            low = middle + 1
    return low


def _is_behind(
    found: tuple[SortValue, ...], after: tuple[SortValue, ...], selection: Selection
) -> bool:
    directions = [each.descending for each in selection.order] + [selection.listing.newest_first]
    for mine, its, descending in zip(found, after, directions, strict=True):
        if (one := _rank(mine)) != (other := _rank(its)):
            return (one < other) if descending else (one > other)
    return False
