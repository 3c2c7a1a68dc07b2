"""The base of all requests."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, TypeVar, get_args

import msgspec

from vmkernel.model import Listing, ListQuery, Operation, Record, Role

__all__ = ["Done", "ListRequest", "MAX_PAGE", "Page", "ReplyT", "Request", "SortValue"]

ReplyT = TypeVar("ReplyT")

MAX_PAGE = 1000
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]


class Request(
    msgspec.Struct,
    Generic[ReplyT],
    frozen=True,
    kw_only=True,
    tag_field="op",
    forbid_unknown_fields=True,
):
    """Base of every request; `ReplyT` is the type of its reply."""

    ROLE: ClassVar[Role | None] = Role.VIEWER
    REPLY: ClassVar[Any] = None
    """`ReplyT`, for decoding the reply."""
    STREAM: ClassVar[bool] = False
    READ_ONLY: ClassVar[bool] = False
    """True if it changes nothing: it is cancelled when the client disconnects, and not audited."""
    DRY_RUN: ClassVar[bool] = False
    """True of a change that has a dry run: its service passes `dry_run.ending` before its first
    change. The beginning of an operation does so too, so that what answers one is True by itself.
    """
    DISCLOSES: ClassVar[bool] = False
    """True if it changes nothing but reveals guests' data: audited as `audit.read`."""
    IN_PARTS: ClassVar[bool] = False
    """True if it is repeated for one piece of work; audited only now and then."""

    def __init_subclass__(cls) -> None:
        for base in cls.__dict__.get("__orig_bases__", ()):
            if replies := get_args(base):
                cls.REPLY = replies[0]
        if cls.REPLY is Operation and "DRY_RUN" not in cls.__dict__:
            cls.DRY_RUN = not cls.STREAM


SortValue = str | int | float | None


class Page(Record, frozen=True, kw_only=True):
    """The reply of a list. It holds fewer items than were asked for if they are large
    (see control/lists/answer.py); what follows comes with the next page."""

    items: bytes = b""
    """The items as JSON, with commas between them: the API sends them as they are."""
    next: tuple[SortValue, ...] | None = None
    """The `after` of the next page; None at the end."""


class ListRequest(Request[Page], frozen=True, kw_only=True):
    """Base of the lists."""

    READ_ONLY: ClassVar[bool] = True
    LISTING: ClassVar[Listing]
    """What is listed, and how it can be."""

    limit: Limit = 100
    after: tuple[SortValue, ...] | None = None
    """The `next` of the page before."""
    query: ListQuery = ListQuery()


class Done(Record, frozen=True, kw_only=True):
    """The reply of a request that returns nothing."""
