"""Long-running work and what happened: operations and events."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, Record, SubjectKind, Timestamp
from vmkernel.model.listing import Column, Listing
from vmkernel.model.problems import OperationError

__all__ = [
    "Event",
    "OPERATION_LISTING",
    "Operation",
    "OperationState",
    "Progress",
    "SYSTEM",
    "Subject",
]

SYSTEM = "system"
"""The actor of what Mica does by itself."""


class Subject(Record, frozen=True, kw_only=True):
    """What an operation or event is about."""

    kind: Annotated[SubjectKind, msgspec.Meta(examples=["vm", "image"])]
    """The noun."""
    id: str


class OperationState(OpenEnum):
    """The state of an operation."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """True if nothing more will happen."""
        return self is not OperationState.RUNNING


class Progress(Record, frozen=True, kw_only=True):
    """How far an operation is."""

    done: int = 0
    total: int = 0
    """0 while it is unknown."""
    unit: str = "bytes"
    stage: str = ""


class Operation(Record, frozen=True, kw_only=True):
    """A piece of work that outlasts its request."""

    id: str
    kind: Annotated[str, msgspec.Meta(examples=["vm.start"])]
    """What is done."""
    subject: Subject
    state: OperationState
    progress: Progress
    cancellable: bool
    actor: str
    """The token that asked for it."""
    created_at: Timestamp
    finished_at: Timestamp | None = None
    error: OperationError | None = None
    """Why it failed."""
    unchanged: bool = False
    """True if there was nothing to do, such as at the start of a VM that runs."""


class Event(Record, frozen=True, kw_only=True):
    """Something that happened; the `data` of one server-sent event."""

    id: str
    """Opaque; what `Last-Event-ID` takes."""
    time: Timestamp
    type: Annotated[str, msgspec.Meta(examples=["vm.state"])]
    """What happened."""
    subject: Subject
    actor: str | None = None
    message: str = ""
    data: dict[str, str | int | float | bool | None] = {}


OPERATION_LISTING = Listing(
    item=Operation,
    filters={
        "id": Column("id"),
        "state": Column("state"),
        "kind": Column("kind"),
        "subject": Column("subject.id", text="The id of what it is about."),
        "subject_kind": Column("subject.kind"),
        "actor": Column("actor"),
    },
    sort={
        "id": Column("id"),
        "state": Column("state"),
        "kind": Column("kind"),
        "actor": Column("actor"),
        "created_at": Column("created_at"),
        "finished_at": Column("finished_at"),
    },
    summary=("kind", "subject", "state", "created_at", "finished_at"),
)
