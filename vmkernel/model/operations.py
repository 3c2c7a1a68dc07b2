"""Long-running work and what happened: operations and events."""

from __future__ import annotations

from enum import StrEnum

from vmkernel.model.base import Record, SubjectKind, Timestamp
from vmkernel.model.problems import Problem

__all__ = ["Event", "Operation", "OperationState", "Progress", "Subject"]


class Subject(Record, frozen=True, kw_only=True):
    """What an operation or event is about."""

    kind: SubjectKind
    id: str


class OperationState(StrEnum):
    """Where an operation stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """True where nothing more will happen."""
        return self is not OperationState.RUNNING


class Progress(Record, frozen=True, kw_only=True):
    """How far an operation is; `total` is 0 while it is unknown."""

    done: int = 0
    total: int = 0
    unit: str = "bytes"
    stage: str = ""


class Operation(Record, frozen=True, kw_only=True):
    """A piece of work that outlasts its request."""

    id: str
    kind: str
    """What is done, such as `vm.start`, `volume.create`."""
    subject: Subject
    state: OperationState
    progress: Progress
    cancellable: bool
    actor: str
    created_at: Timestamp
    finished_at: Timestamp | None = None
    error: Problem | None = None


class Event(Record, frozen=True, kw_only=True):
    """Something that happened."""

    id: str
    """Opaque; ordered within one boot; what `Last-Event-ID` takes."""
    time: Timestamp
    type: str
    """What happened, such as `vm.state`, `audit.denied`, `operation.finished`."""
    subject: Subject
    actor: str | None = None
    message: str = ""
    data: dict[str, str | int | float | bool | None] = {}
