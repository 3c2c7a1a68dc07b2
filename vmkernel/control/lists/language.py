"""Reads what a client wants of a list, and finds all that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vmkernel.control.lists.paths import Part, part_of, reader, texts_at
from vmkernel.model import FieldCode, FieldError, MicaError
from vmkernel.model.listing import (
    MAX_ALTERNATIVES,
    MAX_FIELDS,
    MAX_FILTER_TEXT,
    MAX_LABEL_TEXT,
    MAX_LABELS,
    MAX_SORT,
    Column,
    ColumnKind,
    Listing,
    ListQuery,
    ListView,
    members,
    steps,
)
from vmkernel.model.problems import ErrorCode
from vmkernel.text import PRINTABLE

__all__ = ["Selection", "read_query", "wrong_with"]

_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?\Z")
_PRINTABLE = re.compile(PRINTABLE)
_UNPRINTABLE = "Control and bidirectional control characters are not allowed here."
_FORM = FieldCode.WRONG_FORM
_NUMBER = re.compile(r"-?\d{1,19}(\.\d{1,9})?\Z")
_STARS = 8
"""In one value. Each costs one search in the text, whatever is in it."""
_NAMED = 12
"""So many allowed names are listed in a message; more would hide the rest of it."""

Test = Callable[[Any], bool]


@dataclass(frozen=True)
class Order:
    """One column that a list is sorted by."""

    name: str
    read: Callable[[Any], Iterable[Any]]
    descending: bool


@dataclass(frozen=True)
class Selection:
    """What a client wants of a list."""

    listing: Listing
    tests: tuple[Test, ...]
    order: tuple[Order, ...]
    part: Part
    exact: Mapping[str, str]
    """The columns of which one value is wanted as it is written; services that keep their objects
    by these need not look at the others."""

    @property
    def plain(self) -> bool:
        """True if every item is wanted, in the list's own order."""
        return not self.tests and not self.order

    def takes(self, item: Any) -> bool:
        """True if an item is wanted."""
        return all(test(item) for test in self.tests)


def read_query(listing: Listing, query: ListQuery) -> Selection:
    """What a query says. Raises MicaError (`invalid`) that names all that is wrong."""
    reading = _Reading(listing)
    selection = reading.query(query)
    if reading.wrong:
        details = " ".join(f"{each.pointer}: {each.detail}" for each in reading.wrong)
        raise MicaError(ErrorCode.INVALID, details, fields=tuple(reading.wrong))
    return selection


def wrong_with(listing: Listing, query: ListQuery) -> list[FieldError]:
    """What is wrong with a query, by the names of its parameters."""
    reading = _Reading(listing)
    reading.query(query)
    return reading.wrong


class _Reading:
    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.wrong: list[FieldError] = []

    def query(self, query: ListQuery) -> Selection:
        tests: list[Test] = []
        exact: dict[str, str] = {}
        for name, text in query.filters.items():
            column = self._listing.filters.get(name)
            if column is None:
                self._unknown(name, "Unknown filter", self._listing.filters)
            elif (values := self._values(name, column, text)) is not None:
                tests.append(_any_of(column, values))
                if len(values) == 1 and len(values[0]) == 1 and values[0][0]:
                    exact[name] = values[0][0]
        return Selection(
            listing=self._listing,
            tests=(*tests, *self._labels(query.label)),
            order=tuple(self._order(query.sort)),
            part=self._part(query),
            exact=exact,
        )

    def _values(self, name: str, column: Column, text: str) -> list[list[str]] | None:
        """The values that are wanted, each as the texts between its stars; None if one is wrong."""
        values = _split(text)
        known = len(self.wrong)
        if values is None:
            self._note(
                name, "Write a backslash only before a comma, `*` or another backslash.", _FORM
            )
        else:
            self._check_values(name, column, text, values)
        return values if len(self.wrong) == known else None

    def _check_values(self, name: str, column: Column, text: str, values: list[list[str]]) -> None:
        if not _PRINTABLE.match(text):
            return self._note(name, _UNPRINTABLE, _FORM)
        if len(text) > MAX_FILTER_TEXT:
            return self._too_long(name, MAX_FILTER_TEXT, "characters")
        if len(values) > MAX_ALTERNATIVES:
            return self._too_long(name, MAX_ALTERNATIVES, "values")
        choices = self._listing.choices(column)
        for value in values:
            shown = "*".join(value)[:80]
            if len(value) > _STARS + 1:
                return self._too_long(name, _STARS, "`*` in a value")
            if choices and shown not in choices:
                allowed = ", ".join(choices)
                return self._note(
                    name, f"{shown!r} is none of {allowed}.", FieldCode.NOT_ALLOWED, allowed=allowed
                )
            if self._listing.kind(column) is ColumnKind.NUMBER and not _NUMBER.match(shown):
                return self._note(name, f"{shown!r} is not a number.", FieldCode.WRONG_TYPE)
        return None

    def _labels(self, selectors: tuple[str, ...]) -> list[Test]:
        if selectors and not self._listing.labels:
            self._note("label", "These objects have no labels.", FieldCode.UNKNOWN)
            return []
        if len(selectors) > MAX_LABELS:
            self._too_long("label", MAX_LABELS, "selectors")
            return []
        labels = reader(self._listing.labels)
        found = []
        for selector in selectors:
            if len(selector) > MAX_LABEL_TEXT:
                self._too_long("label", MAX_LABEL_TEXT, "characters")
                continue
            if not _PRINTABLE.match(selector):
                self._note("label", _UNPRINTABLE, _FORM)
                continue
            place, equals, value = selector.partition("=")
            key = place.removeprefix("!") if not equals else place.removesuffix("!")
            if not _KEY.match(key):
                self._note(
                    "label",
                    f"{selector[:80]!r} is not of the form `KEY=VALUE`, `KEY!=VALUE`, `KEY` or"
                    " `!KEY`.",
                    _FORM,
                )
            elif not equals:
                found.append(_has(labels, key, wanted=place == key))
            else:
                found.append(_equals(labels, key, value, wanted=place == key))
        return found

    def _order(self, text: str) -> Iterable[Order]:
        names = text.split(",") if text else []
        if len(names) > MAX_SORT:
            self._too_long("sort", MAX_SORT, "columns")
            return
        seen = set()
        for each in names:
            name = each.removeprefix("-")
            column = self._listing.sort.get(name)
            if column is None:
                self._unknown("sort", f"{name[:80]!r} is unknown", self._listing.sort)
            elif name in seen:
                self._note("sort", f"{name!r} is given more than once.", FieldCode.DUPLICATE)
            else:
                seen.add(name)
                yield Order(name, _column(column), descending=each.startswith("-"))

    def _part(self, query: ListQuery) -> Part:
        listing = self._listing
        if not query.fields:
            return part_of((*listing.key, *listing.summary)) if _brief(query) else {}
        if _brief(query):
            self._note("view", "Send `fields` or `view=summary`, not both.", FieldCode.INVALID)
            return {}
        names = query.fields.split(",")
        if len(names) > MAX_FIELDS:
            self._too_long("fields", MAX_FIELDS, "paths")
            return {}
        paths = [listing.path_of(name) for name in names]
        for name, path in zip(names, paths, strict=True):
            self._check_path(name, path)
        return {} if self.wrong else part_of({*listing.key, *paths})

    def _check_path(self, name: str, path: str) -> None:
        """Note a path that leads to nothing, with what is there at the place where it ends."""
        known = ""
        try:
            for step, _ in zip(path.split("."), steps(self._listing.item, path), strict=False):
                known = f"{known}.{step}" if known else step
        except KeyError:
            there = [f"{known}.{each}" if known else each for each in self._members(known)]
            if not known:
                columns = self._listing.filters.keys() | self._listing.sort.keys()
                there = sorted({*there, *columns})
            from difflib import get_close_matches

            close = get_close_matches(name, there, n=1)
            meant = f" Did you mean `{close[0]}`?" if close else ""
            what = f"{name[:80]!r} is unknown"
            self._unknown(
                "fields", what if there else f"{what}; `{known}` has no fields", there, meant
            )

    def _members(self, path: str) -> tuple[str, ...]:
        return members(self._listing.item, path)

    def _unknown(self, pointer: str, what: str, names: Iterable[str], more: str = "") -> None:
        known = sorted(names)
        rest = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        allowed = ", ".join(known[:_NAMED])
        detail = f"{what}; allowed are {allowed}{rest}." if known else f"{what}."
        self._note(pointer, detail + more, FieldCode.UNKNOWN, known=allowed)

    def _too_long(self, pointer: str, limit: int, what: str) -> None:
        self._note(pointer, f"At most {limit} {what} are allowed.", FieldCode.TOO_LONG, limit=limit)

    def _note(self, pointer: str, detail: str, code: FieldCode, **parameters: str | int) -> None:
        self.wrong.append(
            FieldError(pointer=pointer, detail=detail, code=code, parameters={**parameters})
        )


def _brief(query: ListQuery) -> bool:
    return query.view is ListView.SUMMARY


def _split(text: str) -> list[list[str]] | None:
    """The values of a list with commas, each as the texts between its stars; None if a backslash
    is before anything else."""
    values: list[list[str]] = [[""]]
    characters = iter(text)
    for character in characters:
        if character == "\\":
            character = next(characters, "")
            if not character or character not in ",*\\":
                return None
            values[-1][-1] += character
        elif character == ",":
            values.append([""])
        elif character == "*":
            values[-1].append("")
        else:
            values[-1][-1] += character
    return values


def _fits(text: str, pieces: list[str]) -> bool:
    """True if a text begins with the first piece, ends with the last and has the others between."""
    first, *middle = pieces
    if not middle:
        return text == first
    *middle, last = middle
    if not text.startswith(first) or len(text) < len(first) + len(last):
        return False
    place, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, place, end)
        if found < 0:
            return False
        place = found + len(piece)
    return text.endswith(last)


def _column(column: Column) -> Callable[[Any], Iterable[Any]]:
    """The values of a column: of its other path where the first leads to nothing."""
    read = reader(column.path)
    if not column.otherwise:
        return read
    otherwise = reader(column.otherwise)
    return lambda item: [each for each in read(item) if each != ""] or otherwise(item)


def _any_of(column: Column, values: list[list[str]]) -> Test:
    read = _column(column)
    plain = {value[0] for value in values if len(value) == 1}
    patterns = [value for value in values if len(value) > 1]

    def test(item: Any) -> bool:
        texts = texts_at(read(item)) or [""]
        return any(
            text in plain or any(_fits(text, pattern) for pattern in patterns) for text in texts
        )

    return test


def _has(labels: Callable[[Any], Iterable[Any]], key: str, *, wanted: bool) -> Test:
    return lambda item: any(key in each for each in labels(item)) is wanted


def _equals(labels: Callable[[Any], Iterable[Any]], key: str, value: str, *, wanted: bool) -> Test:
    return lambda item: any(each.get(key) == value for each in labels(item)) is wanted
