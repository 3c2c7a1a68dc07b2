"""How each noun can be listed: what it is filtered, sorted and shown by, declared beside the noun.

A path leads through the fields of the noun: `status.state`. Through a list it leads into each of
its items (`spec.disks.volume`), through a mapping to the member of that name (`spec.labels.env`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any

import msgspec

from vmkernel.model.base import OpenEnum, Printable, Record

__all__ = [
    "Column",
    "ColumnKind",
    "ListQuery",
    "ListView",
    "Listing",
    "MAX_ALTERNATIVES",
    "MAX_FIELDS",
    "MAX_FIELDS_TEXT",
    "MAX_FILTER_TEXT",
    "MAX_LABELS",
    "MAX_LABEL_TEXT",
    "MAX_SORT",
    "MAX_SORT_TEXT",
    "PARAMETERS",
]

MAX_FILTER_TEXT = 1024
"""Of one filter: 16 of the longest ids."""
MAX_ALTERNATIVES = 32
MAX_LABELS = 16
MAX_LABEL_TEXT = 63 + 2 + 256
"""The longest key, `!=`, the longest value."""
MAX_SORT = 4
MAX_SORT_TEXT = 128
MAX_FIELDS = 64
MAX_FIELDS_TEXT = 2048
PARAMETERS = frozenset({"limit", "page", "label", "sort", "fields", "view"})
"""What every list takes; no column has such a name."""


class ListView(OpenEnum):
    """How much of each item a list shows."""

    FULL = "full"
    SUMMARY = "summary"
    """What a table shows of it."""


ColumnName = Annotated[Printable, msgspec.Meta(max_length=64)]
FilterText = Annotated[Printable, msgspec.Meta(max_length=MAX_FILTER_TEXT)]
LabelText = Annotated[Printable, msgspec.Meta(max_length=MAX_LABEL_TEXT)]


class ListQuery(Record, frozen=True, kw_only=True):
    """What is wanted of a list, as the client wrote it."""

    filters: Annotated[dict[ColumnName, FilterText], msgspec.Meta(max_length=32)] = {}
    """By column: the values that it may have, separated by commas."""
    label: Annotated[tuple[LabelText, ...], msgspec.Meta(max_length=MAX_LABELS)] = ()
    sort: Annotated[Printable, msgspec.Meta(max_length=MAX_SORT_TEXT)] = ""
    fields: Annotated[Printable, msgspec.Meta(max_length=MAX_FIELDS_TEXT)] = ""
    view: ListView = ListView.FULL


class ColumnKind(StrEnum):
    """What a column's values are."""

    TEXT = "text"
    CHOICE = "choice"
    FLAG = "flag"
    NUMBER = "number"


@dataclass(frozen=True)
class Column:
    """What a list is filtered or sorted by."""

    path: str
    otherwise: str = ""
    """The path that counts if the first leads to nothing, or to an empty text."""
    text: str = ""
    """What the parameter's description says, if the name doesn't."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """How one noun can be listed."""

    item: type[msgspec.Struct]
    filters: Mapping[str, Column]
    sort: Mapping[str, Column]
    summary: tuple[str, ...]
    """The paths that `view=summary` shows besides the key."""
    key: tuple[str, ...] = ("id",)
    """What identifies an item; lists are ordered by it, and every view shows it."""
    labels: str = ""
    """The path of its labels; empty if it has none."""
    newest_first: bool = False
    """True if the list begins with the highest key."""

    def path_of(self, name: str) -> str:
        """A path, or that of the column with this name."""
        column = self.filters.get(name) or self.sort.get(name)
        return column.path if column is not None else name

    def kind(self, column: Column) -> ColumnKind:
        """What the values of a column are."""
        found = leaf(self.item, column.path)
        if isinstance(found, type) and issubclass(found, StrEnum):
            return ColumnKind.CHOICE
        if found is bool:
            return ColumnKind.FLAG
        return ColumnKind.NUMBER if found in (int, float) else ColumnKind.TEXT

    def choices(self, column: Column) -> tuple[str, ...]:
        """The values that a column may have, if it has a closed set of them."""
        found = leaf(self.item, column.path)
        if isinstance(found, type) and issubclass(found, StrEnum):
            return tuple(str(each.value) for each in found)
        return ("true", "false") if found is bool else ()


def steps(item: Any, path: str) -> Iterator[Any]:
    """The type of each step of a path (`msgspec.inspect`). Raises KeyError at an unknown name."""
    info = _info(item)
    for name in path.split("."):
        info = _inner(info)
        fields = getattr(info, "fields", None)
        if fields is not None:
            info = next((each.type for each in fields if each.encode_name == name), None)
            if info is None:
                raise KeyError(name)
        elif hasattr(info, "value_type"):
            info = info.value_type
        else:
            raise KeyError(name)
        yield info


def members(item: Any, path: str = "") -> tuple[str, ...]:
    """The names that may follow a path; none at a plain value."""
    info = _info(item)
    if path:
        *_, info = steps(item, path)
    return tuple(each.encode_name for each in getattr(_inner(info), "fields", ()))


@cache
def leaf(item: Any, path: str) -> Any:
    """The Python type of the values at a path. Raises KeyError at an unknown name."""
    import msgspec.inspect as mi

    *_, info = steps(item, path)
    info = _inner(info)
    plain: dict[Any, type] = {mi.BoolType: bool, mi.IntType: int, mi.FloatType: float}
    return info.cls if isinstance(info, mi.EnumType) else plain.get(type(info), str)


@cache
def _info(item: Any) -> Any:
    import msgspec.inspect as mi

    return mi.type_info(item)


def _inner(info: Any) -> Any:
    """The type without limits, null, and the list around it."""
    import msgspec.inspect as mi

    while True:
        if isinstance(info, mi.Metadata):
            info = info.type
        elif isinstance(info, mi.UnionType):
            info = next(each for each in info.types if not isinstance(each, mi.NoneType))
        elif isinstance(info, mi.CollectionType | mi.VarTupleType):
            info = info.item_type
        else:
            return info
