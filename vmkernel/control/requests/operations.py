"""Operations and events."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from vmkernel.control.requests.base import ListRequest, Page, Request
from vmkernel.model import Event, Operation, Role
from vmkernel.model.base import ShortText

__all__ = ["CancelOperation", "GetOperation", "ListOperations", "OperationPage", "SubscribeEvents"]


class OperationPage(Page, frozen=True, kw_only=True):
    """A part of the operations, oldest first."""

    items: tuple[Operation, ...]
    more: bool


class ListOperations(ListRequest[OperationPage], frozen=True, kw_only=True, tag="operation.list"):
    """Running and recent operations."""

    REPLY: ClassVar[Any] = OperationPage


class GetOperation(Request[Operation], frozen=True, kw_only=True, tag="operation.get"):
    """One operation; with `wait_s`, once it has finished or the time is over."""

    REPLY: ClassVar[Any] = Operation
    READ_ONLY: ClassVar[bool] = True

    id: ShortText
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 0.0


class CancelOperation(Request[Operation], frozen=True, kw_only=True, tag="operation.cancel"):
    """Ask an operation to stop; it answers with the operation as it then stands."""

    ROLE: ClassVar[Role | None] = Role.OPERATOR
    REPLY: ClassVar[Any] = Operation

    id: ShortText


class SubscribeEvents(Request[Event], frozen=True, kw_only=True, tag="event.subscribe"):
    """Every event after `after` (or from now on); the replies go on until the peer closes.

    Where `after` is older than the ring buffer, the first event is `events.lost`.
    """

    REPLY: ClassVar[Any] = Event
    READ_ONLY: ClassVar[bool] = True

    after: str | None = None
