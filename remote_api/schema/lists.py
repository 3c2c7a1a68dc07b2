"""The parameters of lists: the same for all, and the filters of each noun."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, ClassVar, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from remote_api.schema.base import PageQuery
from vmkernel.model import Listing, ListQuery, ListView
from vmkernel.model.listing import (
    MAX_FIELDS_TEXT,
    MAX_FILTER_TEXT,
    MAX_LABEL_TEXT,
    MAX_LABELS,
    MAX_SORT_TEXT,
    Column,
)

__all__ = ["ListParameters", "asked_of", "list_parameters"]


class ListParameters(PageQuery, frozen=True, kw_only=True):
    """What every list takes besides its filters (see `list_parameters`)."""

    LISTING: ClassVar[Listing]

    sort: Annotated[str, Meta(min_length=1, max_length=MAX_SORT_TEXT)] | UnsetType = UNSET
    fields: Annotated[str, Meta(min_length=1, max_length=MAX_FIELDS_TEXT)] | UnsetType = UNSET
    view: ListView = ListView.FULL


@cache
def list_parameters(listing: Listing) -> type[ListParameters]:
    """The parameters of one noun's list."""
    sortable = ", ".join(f"`{name}`" for name in listing.sort)
    first = next(iter(listing.sort))
    own: list[tuple[str, Any, Any]] = [
        ("sort", _text(f"Columns, the first decides most; `-` before one: descending. {sortable}.",
                       MAX_SORT_TEXT, f"-{first}"), UNSET),
        ("fields", _text("Show only these, and what identifies an item: paths such as"
                         f" `{listing.summary[-1]}`, or names of columns.",
                         MAX_FIELDS_TEXT, listing.summary[-1]), UNSET),
    ]  # fmt: skip
    if listing.labels:
        selector = Annotated[str, Meta(min_length=1, max_length=MAX_LABEL_TEXT)]
        told = (
            "`KEY=VALUE`, `KEY!=VALUE` (or without it), `KEY` (with any value) or `!KEY` (without"
            " it). Can be repeated: all must hold."
        )
        taken = Annotated[
            tuple[selector, ...],
            Meta(max_length=MAX_LABELS, description=told, examples=[["env=prod"]]),
        ]
        own.append(("label", taken, ()))
    own += [(name, _filter(listing, column), UNSET) for name, column in listing.filters.items()]
    made: Any = msgspec.defstruct(
        f"{listing.item.__name__}ListParameters",
        own,
        bases=(ListParameters,),
        module=__name__,
        namespace={"LISTING": listing},
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )
    return cast(type[ListParameters], made)


def asked_of(listing: Listing, values: dict[str, Any]) -> ListQuery:
    """What the parameters ask for; those that are no text, or unknown, are left out."""
    views = {view.value: view for view in ListView}
    label = values.get("label", ())
    return ListQuery(
        filters={n: t for n, t in values.items() if n in listing.filters and isinstance(t, str)},
        label=tuple(label) if listing.labels else (),
        sort=_given(values.get("sort")),
        fields=_given(values.get("fields")),
        view=views.get(str(values.get("view", "")), ListView.FULL),
    )


def _given(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _text(told: str, most: int, example: str) -> Any:
    return (
        Annotated[str, Meta(min_length=1, max_length=most, description=told, examples=[example])]
        | UnsetType
    )


def _filter(listing: Listing, column: Column) -> Any:
    told = f"{column.text} " if column.text else ""
    if choices := listing.choices(column):
        named = ", ".join(f"`{each}`" for each in choices)
        told += f"One or several, separated by commas: {named}."
        return Annotated[str, Meta(description=told, examples=[choices[0]])] | UnsetType
    told += "One or several, separated by commas; `*` matches any text."
    most = Meta(max_length=MAX_FILTER_TEXT, description=told, examples=["web-*"])
    return Annotated[str, most] | UnsetType
