"""What every wire type is made of: the strict model, identifiers, pages, pages' parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import Annotated, Any, Self

import msgspec

from vmkernel.text import PRINTABLE, PRINTABLE_LINES

__all__ = [
    "Description",
    "DisplayName",
    "MAX_LIMIT",
    "NoQuery",
    "OBSERVED",
    "ObjectBody",
    "PageQuery",
    "PathText",
    "Printable",
    "SentTimestamp",
    "Sha256Hex",
    "ShortText",
    "Slug",
    "Timestamp",
    "WireEnum",
    "WireModel",
    "open_sets",
]

MAX_LIMIT = 1000

Slug = Annotated[
    str,
    msgspec.Meta(
        # `$(?!\n)`: Python's `$` also matches before a final line feed, ECMA 262's doesn't.
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)",
        min_length=1,
        max_length=63,
        description="Lower-case letters, digits and inner hyphens; at most 63 characters.",
        examples=["web-1"],
    ),
]

Sha256Hex = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9a-f]{64}$(?!\n)", description="A SHA-256 digest in lower-case hexadecimal."
    ),
]

Timestamp = Annotated[
    str,
    msgspec.Meta(
        description="A point in time, RFC 3339, UTC, ending in Z.",
        max_length=40,
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$(?!\n)",
        examples=["2026-11-23T06:30:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]

# What users choose freely: none of it may write to a terminal or a log.
Printable = Annotated[str, msgspec.Meta(pattern=PRINTABLE)]
DisplayName = Annotated[Printable, msgspec.Meta(max_length=80)]
ShortText = Annotated[Printable, msgspec.Meta(max_length=256)]
PathText = Annotated[Printable, msgspec.Meta(max_length=1024)]
Description = Annotated[str, msgspec.Meta(max_length=4096, pattern=PRINTABLE_LINES)]
SentTimestamp = Annotated[
    str,
    msgspec.Meta(
        description="A point in time, RFC 3339, with `Z` or an offset from UTC.",
        max_length=40,
        pattern=(
            r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$(?!\n)"
        ),
        examples=["2026-11-23T06:30:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
"""What a client may write; it is answered as a Timestamp."""


_OPEN: ContextVar[bool] = ContextVar("open sets of values", default=False)


class WireEnum(StrEnum):
    """Base of every set of values. A request may have these only; an answer of a newer host may
    have others, which a client reads as members without a name of their own (see `open_sets`)."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not _OPEN.get() or not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member


@contextmanager
def open_sets() -> Iterator[None]:
    """Take values that a set doesn't have, for as long as an answer is read."""
    token = _OPEN.set(True)
    try:
        yield
    finally:
        _OPEN.reset(token)


class WireModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every wire type: frozen, keyword-only, refusing unknown fields.

    The client removes what it doesn't know before it decodes, so that it can talk to newer hosts.
    """


class ObjectBody(WireModel, frozen=True, kw_only=True):
    """Base of what is sent to make or change an object.

    It takes what the answer of a GET has besides the spec, so that this can be changed and sent
    back; `id` must then be the path's.
    """

    id: Annotated[
        Slug | msgspec.UnsetType, msgspec.Meta(description="If it is sent back: the path's.")
    ] = msgspec.UNSET
    revision: Annotated[
        int | msgspec.UnsetType,
        msgspec.Meta(description="Sent back; ignored, the condition is in If-Match."),
    ] = msgspec.UNSET
    created_at: Annotated[
        SentTimestamp | msgspec.UnsetType, msgspec.Meta(description="Sent back; ignored.")
    ] = msgspec.UNSET
    status: Annotated[
        dict[str, Any] | msgspec.UnsetType, msgspec.Meta(description="Sent back; ignored.")
    ] = msgspec.UNSET


OBSERVED = ObjectBody.__struct_fields__
"""What an object has besides its spec."""


class NoQuery(WireModel, frozen=True, kw_only=True):
    """A call that takes no query parameters."""


class PageQuery(WireModel, frozen=True, kw_only=True):
    """The parameters of every list."""

    limit: Annotated[
        int, msgspec.Meta(ge=1, le=MAX_LIMIT, description="The most items that the answer holds.")
    ] = 100
    page: (
        Annotated[
            str,
            msgspec.Meta(
                min_length=1,
                max_length=1024,
                pattern=r"^[A-Za-z0-9_-]+$(?!\n)",
                description="Where to go on: `next` of the page before, as it came.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
