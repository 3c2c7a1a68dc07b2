"""What every noun is made of: the strict record, identifiers and their patterns."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.text import PRINTABLE, PRINTABLE_LINES

__all__ = [
    "Description",
    "DisplayName",
    "PathText",
    "Printable",
    "Record",
    "SLUG_PATTERN",
    "Sha256Hex",
    "ShortText",
    "Slug",
    "SubjectKind",
    "Timestamp",
]

SLUG_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)"
# Patterns end in `$(?!\n)`: Python's `$` also matches before a final line feed, ECMA 262's doesn't.

Slug = Annotated[
    str,
    msgspec.Meta(
        pattern=SLUG_PATTERN,
        max_length=63,
        description="Lower-case letters, digits and inner hyphens; at most 63 characters.",
    ),
]
"""A client-chosen, immutable identifier: a DNS label (RFC 1123 section 2.1), lower case."""

Sha256Hex = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9a-f]{64}$(?!\n)", description="A SHA-256 digest in lower-case hex."
    ),
]

Timestamp = Annotated[
    str,
    msgspec.Meta(
        max_length=64,
        pattern=PRINTABLE,
        description="A point in time, RFC 3339, UTC, ending in Z.",
    ),
]

# What users choose freely. No such text may write to a terminal or a log (vmkernel/text.py).
Printable = Annotated[str, msgspec.Meta(pattern=PRINTABLE)]
DisplayName = Annotated[Printable, msgspec.Meta(max_length=80)]
ShortText = Annotated[Printable, msgspec.Meta(max_length=256)]
PathText = Annotated[Printable, msgspec.Meta(max_length=1024)]
Description = Annotated[str, msgspec.Meta(max_length=4096, pattern=PRINTABLE_LINES)]

SubjectKind = str
"""What an event or operation is about: host, vm, volume, image, datastore, token, network."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every domain type: frozen, keyword-only, refusing unknown fields."""
