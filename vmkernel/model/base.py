"""What every noun is made of: the strict record, the set of values, identifiers and other texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import Annotated, Self

import msgspec

from vmkernel.text import PRINTABLE, PRINTABLE_LINES

__all__ = [
    "Description",
    "DisplayName",
    "OpenEnum",
    "PathText",
    "Printable",
    "Record",
    "SLUG_PATTERN",
    "SentTimestamp",
    "Sha256Hex",
    "ShortText",
    "Slug",
    "SubjectKind",
    "Timestamp",
    "open_sets",
]

SLUG_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)"
# Patterns end in `$(?!\n)`: Python's `$` also matches before a final line feed, ECMA 262's doesn't.

Slug = Annotated[
    str,
    msgspec.Meta(
        pattern=SLUG_PATTERN,
        min_length=1,
        max_length=63,
        description="Lower-case letters, digits and inner hyphens; at most 63 characters.",
        examples=["web-1"],
    ),
]
"""A client-chosen, immutable identifier: a DNS label (RFC 1123 section 2.1), lower case."""

Sha256Hex = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9a-f]{64}$(?!\n)", description="A SHA-256 digest in lower-case hexadecimal."
    ),
]

Timestamp = Annotated[
    str,
    msgspec.Meta(
        description="A time in RFC 3339 format, UTC, ending in Z.",
        max_length=40,
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$(?!\n)",
        examples=["2026-11-23T06:30:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]

SentTimestamp = Annotated[
    str,
    msgspec.Meta(
        description="A time in RFC 3339 format, with `Z` or an offset from UTC.",
        max_length=40,
        pattern=(
            r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$(?!\n)"
        ),
        examples=["2026-11-23T06:30:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
"""A time as clients may write it; it is stored and returned as a Timestamp."""

# What users choose freely. No such text may write to a terminal or a log (vmkernel/text.py).
Printable = Annotated[str, msgspec.Meta(pattern=PRINTABLE)]
DisplayName = Annotated[Printable, msgspec.Meta(max_length=80)]
ShortText = Annotated[Printable, msgspec.Meta(max_length=256)]
PathText = Annotated[Printable, msgspec.Meta(max_length=1024)]
Description = Annotated[str, msgspec.Meta(max_length=4096, pattern=PRINTABLE_LINES)]

SubjectKind = str
"""What an event or operation is about: host, vm, volume, image, datastore, token, network."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every noun: frozen, keyword-only, refusing unknown fields.

    The client removes what it doesn't know before it decodes, so that it can talk to newer hosts.
    """


_OPEN: ContextVar[bool] = ContextVar("open sets of values", default=False)


class OpenEnum(StrEnum):
    """Base of every set of values. A request may have these only; the response of a newer host may
    have others, which a client reads as members without a name (see `open_sets`).
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not _OPEN.get() or not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member


@contextmanager
def open_sets() -> Iterator[None]:
    """Accept values that a set doesn't have, while a response is decoded."""
    token = _OPEN.set(True)
    try:
        yield
    finally:
        _OPEN.reset(token)
