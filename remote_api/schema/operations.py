"""Long-running work and what happened: operations and events."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from vmkernel.model import Record, Timestamp
from vmkernel.model.base import Printable

__all__ = ["EventTicket", "EventsQuery", "MAX_WAIT_S", "WaitQuery"]

MAX_WAIT_S = 300


class WaitQuery(Record, frozen=True, kw_only=True):
    """How long the answer may be held back for the work to finish."""

    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT_S)] = 0.0
    """Seconds to wait for the work to finish before the answer is sent."""


Wanted = Annotated[Printable, Meta(min_length=1, max_length=340)]
"""The longest is a label: a key of 63 characters and a value of 256."""
WantedList = Annotated[tuple[Wanted, ...], Meta(max_length=32)]


class EventsQuery(Record, frozen=True, kw_only=True):
    """Which events are wanted. Each filter may be given several times: types and subjects say what
    may be, labels what must be."""

    type: Annotated[WantedList, Meta(examples=[["vm.*", "volume.created"]])] = ()
    """Types of events; `*` is any text."""
    subject: Annotated[WantedList, Meta(examples=[["vm/web"]])] = ()
    """`KIND` or `KIND/ID`. Events of an operation are also about what it works on."""
    label: Annotated[WantedList, Meta(examples=[["env=prod"]])] = ()
    """`KEY=VALUE`, or `KEY` for any value: labels of the object, before the change or after."""
    after: Annotated[str, Meta(min_length=1, max_length=128, pattern="^[ -~]*$")] | UnsetType = (
        UNSET
    )
    """The event after which to begin: the `Mica-Event-Id` of a list, or the last one seen. If what
    follows it is no longer known, the answer is 410: list again. `Last-Event-ID` goes before it."""
    ticket: Annotated[str, Meta(min_length=1, max_length=128, pattern="^[A-Za-z0-9_-]+$")] | (
        UnsetType
    ) = UNSET
    """From `POST /v1/events/ticket`, instead of a token."""


class EventTicket(Record, frozen=True, kw_only=True):
    """What opens event streams without a header, for `EventSource` in browsers."""

    ticket: str
    events: str
    """The path to open; filters can be added to it."""
    expires_at: Timestamp
    """When it is void, if it was not opened. After each stream it is good for another minute."""
    ends_at: Timestamp
    """When it is void in any case; a stream that is open then ends."""
