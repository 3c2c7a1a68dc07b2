"""Operations (long-running work) and events (what happened)."""

from __future__ import annotations

from typing import Annotated, Any

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
    """The kind of object."""
    id: str


class OperationState(OpenEnum):
    """The state of an operation."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PLANNED = "planned"
    """Of a dry run: it would be started. There is no such operation."""

    @property
    def finished(self) -> bool:
        """True if nothing more will happen."""
        return self is not OperationState.RUNNING


class Progress(Record, frozen=True, kw_only=True):
    """How far an operation is."""

    done: int = 0
    total: int = 0
    """0 if not known yet."""
    unit: str = "bytes"
    stage: str = ""
    rate_per_s: int | None = None
    """So many of the unit a second, since the stage began; null until that can be said."""
    remaining_s: int | None = None
    """How long the stage will take at that rate; null if its total is unknown."""


class Operation(Record, frozen=True, kw_only=True):
    """A piece of work that outlasts its request."""

    id: str
    kind: Annotated[str, msgspec.Meta(examples=["vm.start"])]
    """What it does."""
    subject: Subject
    state: OperationState
    progress: Progress
    cancellable: bool
    actor: str
    """The token that requested it."""
    created_at: Timestamp
    finished_at: Timestamp | None = None
    error: OperationError | None = None
    """Why it failed."""
    parent: str | None = None
    """The operation that began it as a part of its own work."""
    unchanged: bool = False
    """True if there was nothing to do, such as at the start of a VM that runs."""


class Event(Record, frozen=True, kw_only=True):
    """Something that happened; the `data` of one server-sent event."""

    id: str
    """Opaque; what `Last-Event-ID` and `after` take."""
    time: Timestamp
    type: Annotated[str, msgspec.Meta(examples=["vm.state"])]
    """What happened."""
    subject: Subject
    actor: str | None = None
    message: str = ""
    data: dict[str, str | int | float | bool | None] = {}
    object: dict[str, Any] | None = None
    """The subject as its GET answers a viewer: as it was after the change (if it changed again
    meanwhile, it may be as it is now), and of one that was deleted, before. Null if its GET needs
    more than this reader's role, if it is larger than 16 KiB, or if there is no such object."""


OPERATION_LISTING = Listing(
    item=Operation,
    filters={
        "id": Column("id"),
        "state": Column("state"),
        "kind": Column("kind"),
        "subject": Column("subject.id", text="The id of what it is about."),
        "subject_kind": Column("subject.kind"),
        "actor": Column("actor"),
        "parent": Column("parent", text="The operation that began it; empty for none."),
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
