"""Long-running work and what happened: operations and events."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Timestamp, WireEnum, WireModel
from remote_api.schema.problems import OperationError

__all__ = [
    "Event",
    "MAX_WAIT_S",
    "Operation",
    "OperationPage",
    "OperationState",
    "Progress",
    "Subject",
    "WaitQuery",
]

MAX_WAIT_S = 300


class Subject(WireModel, frozen=True, kw_only=True):
    """What an operation or event is about."""

    kind: Annotated[str, Meta(description="The noun.", examples=["vm", "image"])]
    id: str


class OperationState(WireEnum):
    """Where an operation stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """True where nothing more will happen."""
        return self is not OperationState.RUNNING


class Progress(WireModel, frozen=True, kw_only=True):
    """How far an operation is."""

    done: int = 0
    total: Annotated[int, Meta(description="0 while it is unknown.")] = 0
    unit: str = "bytes"
    stage: str = ""


class Operation(WireModel, frozen=True, kw_only=True):
    """A piece of work that outlasts its request."""

    id: str
    kind: Annotated[str, Meta(description="What is done.", examples=["vm.start"])]
    subject: Subject
    state: OperationState
    progress: Progress
    cancellable: bool
    actor: Annotated[str, Meta(description="The token that asked for it.")]
    created_at: Timestamp
    finished_at: Timestamp | None = None
    error: Annotated[OperationError | None, Meta(description="Why it failed.")] = None


class OperationPage(WireModel, frozen=True, kw_only=True):
    """A part of the operations, oldest first."""

    items: tuple[Operation, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class Event(WireModel, frozen=True, kw_only=True):
    """Something that happened; the `data` of one server-sent event."""

    id: Annotated[str, Meta(description="Opaque; what `Last-Event-ID` takes.")]
    time: Timestamp
    type: Annotated[str, Meta(description="What happened.", examples=["vm.state"])]
    subject: Subject
    actor: str | None = None
    message: str = ""
    data: dict[str, str | int | float | bool | None] = {}


class WaitQuery(WireModel, frozen=True, kw_only=True):
    """How long the answer may be held back for the work to finish."""

    wait: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_WAIT_S,
            description="Seconds to wait for the work to finish before the answer is sent.",
        ),
    ] = 0.0
