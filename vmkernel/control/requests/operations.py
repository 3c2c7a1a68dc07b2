"""Operations and events."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from vmkernel.control.requests.base import ListRequest, Request
from vmkernel.model import (
    OPERATION_LISTING,
    Event,
    Listing,
    Operation,
    Role,
)
from vmkernel.model.base import Printable, ShortText

__all__ = ["CancelOperation", "GetOperation", "ListOperations", "SubscribeEvents"]


Filters = Annotated[
    tuple[Annotated[Printable, msgspec.Meta(max_length=340)], ...], msgspec.Meta(max_length=32)
]
"""A label is the longest: its key has 63 characters, its value 256."""


class ListOperations(ListRequest, frozen=True, kw_only=True, tag="operation.list"):
    """Running and recently finished operations."""

    LISTING: ClassVar[Listing] = OPERATION_LISTING


class GetOperation(Request[Operation], frozen=True, kw_only=True, tag="operation.get"):
    """One operation; with `wait_s`, the reply comes when it has finished or the time is over."""

    READ_ONLY: ClassVar[bool] = True

    id: ShortText
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 0.0


class CancelOperation(Request[Operation], frozen=True, kw_only=True, tag="operation.cancel"):
    """Cancel an operation; the reply is its state afterwards."""

    DRY_RUN: ClassVar[bool] = False
    ROLE: ClassVar[Role | None] = Role.OPERATOR

    id: ShortText


class SubscribeEvents(Request[Event], frozen=True, kw_only=True, tag="event.subscribe"):
    """Every event after `after` (or from now on); until the peer closes.

    If `after` is older than the ring buffer, the first event is `events.lost`; with `gapless`,
    the request fails by `gone`. The filters are those of vmkernel/events/filter.py.
    """

    READ_ONLY: ClassVar[bool] = True

    after: str | None = None
    gapless: bool = False
    types: Filters = ()
    subjects: Filters = ()
    labels: Filters = ()
