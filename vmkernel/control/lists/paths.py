"""Reading records by path, and the parts of them that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any

import msgspec

__all__ = ["Part", "SortValue", "part_of", "projected", "reader", "sort_value", "texts_at"]

SortValue = str | int | float | None
_SORTED_TEXT = 128
"""Of a text, so much decides the order: a page token that holds four of them stays short."""
Part = Mapping[str, Any]
"""Which members are wanted, and of each which; an empty part is all of a value."""


def reader(path: str) -> Callable[[Any], Iterable[Any]]:
    """A function that gives the values at a path of a record: none, one, or one of each item."""
    names = path.split(".")

    def values(record: Any) -> Iterable[Any]:
        found = [record]
        for name in names:
            found = [each for one in found for each in _member(one, name)]
        return found

    return values


def texts_at(values: Iterable[Any]) -> list[str]:
    """Values as filters compare them."""
    return [_text(value) for value in values]


def sort_value(values: Iterable[Any]) -> SortValue:
    """The value by which a record is sorted; None if it has none."""
    for value in values:
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, str):
            return value[:_SORTED_TEXT] or None
        return int(value) if isinstance(value, bool) else value
    return None


def part_of(paths: Iterable[str]) -> Part:
    """The part of a record that these paths name; what is named whole is wanted whole."""
    whole: dict[str, Any] = {}
    for path in sorted(paths, key=len):
        place, *names = path.split(".")
        below = whole
        for name in [place, *names[:-1]] if names else []:
            inner = below.get(name)
            if inner is None:
                inner = below[name] = {}
            elif not inner:
                break  # all of it is wanted already
            below = inner
        else:
            below.setdefault(names[-1] if names else place, {})
    return whole


def projected(value: Any, part: Part) -> Any:
    """What is wanted of a value, in the shape of the whole."""
    if not part:
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [projected(each, part) for each in value]
    if isinstance(value, Mapping):
        return {
            name: projected(value[name], inner) for name, inner in part.items() if name in value
        }
    if isinstance(value, msgspec.Struct):
        fields = _fields(type(value))
        found = ((name, getattr(value, fields[name]), inner) for name, inner in part.items())
        return {
            name: projected(each, inner) for name, each, inner in found if each is not msgspec.UNSET
        }
    return value


def _member(value: Any, name: str) -> Iterable[Any]:
    if isinstance(value, msgspec.Struct):
        found = getattr(value, _fields(type(value))[name])
    elif isinstance(value, Mapping):
        found = value.get(name)
    else:
        return ()
    if found is None or found is msgspec.UNSET:
        return ()
    if isinstance(found, tuple | list):
        return found
    return (found,)


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The names of a record's fields by those on the wire."""
    return dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
