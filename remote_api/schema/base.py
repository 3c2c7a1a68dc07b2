"""What bodies and queries are made of: sent-back objects, pages and their parameters."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec

from vmkernel.model import Record, SentTimestamp, Slug

__all__ = ["MAX_LIMIT", "NoQuery", "OBSERVED", "ObjectBody", "PageOf", "PageQuery", "SpecBody"]

MAX_LIMIT = 1000
ItemT = TypeVar("ItemT")
SpecT = TypeVar("SpecT")


class ObjectBody(Record, frozen=True, kw_only=True):
    """Base of bodies that create or change an object.

    It accepts the other members of a GET response, so that a response can be changed and sent back;
    `id` must then be the path's.
    """

    id: Slug | msgspec.UnsetType = msgspec.UNSET
    """If it is sent back: the path's."""
    revision: int | msgspec.UnsetType = msgspec.UNSET
    """Sent back; ignored, the condition is in If-Match."""
    created_at: SentTimestamp | msgspec.UnsetType = msgspec.UNSET
    """Sent back; ignored."""
    status: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """Sent back; ignored."""


class SpecBody(ObjectBody, Generic[SpecT], frozen=True, kw_only=True):
    """An object to make or to change."""

    NAMED: ClassVar[str] = "{}Body"
    """In the document: `VolumeBody` for `SpecBody[VolumeSpec]`."""

    spec: SpecT


OBSERVED = ObjectBody.__struct_fields__
"""What an object has besides its spec."""


class PageOf(Record, Generic[ItemT], frozen=True, kw_only=True):
    """A part of a list."""

    NAMED: ClassVar[str] = "{}Page"
    """In the document: `VolumePage` for `PageOf[Volume]`."""

    items: tuple[ItemT, ...]
    next: str | None
    """The `page` of the next part; null at the end."""


class NoQuery(Record, frozen=True, kw_only=True):
    """A call that takes no query parameters."""


class PageQuery(Record, frozen=True, kw_only=True):
    """The parameters of every list."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)] = 100
    """The most items that the answer holds."""
    page: (
        Annotated[
            str,
            msgspec.Meta(
                min_length=1,
                max_length=4096,
                pattern=r"^[A-Za-z0-9_-]+$(?!\n)",
                description="The `next` of the previous page, unchanged.",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
