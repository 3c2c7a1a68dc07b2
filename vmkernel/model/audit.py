"""The audit trail: who changed, read or was refused what."""

from __future__ import annotations

from enum import StrEnum

from vmkernel.model.base import Record, Timestamp
from vmkernel.model.operations import Subject
from vmkernel.model.problems import ErrorCode

__all__ = ["AuditOutcome", "AuditRecord"]


class AuditOutcome(StrEnum):
    """What became of a request."""

    CHANGED = "changed"
    """It was carried out, or its operation has begun."""
    READ = "read"
    """It changed nothing and handed out what a guest holds."""
    DENIED = "denied"


class AuditRecord(Record, frozen=True, kw_only=True):
    """One kind of request by one actor about one object, and how often it came."""

    id: str
    """Opaque; ordered by the first time."""
    outcome: AuditOutcome
    request: str
    """What was asked for, such as `vm.start`."""
    subject: Subject
    actor: str
    """The token's id; `anonymous` without a good one."""
    origin: str
    """The client's address."""
    first_at: Timestamp
    last_at: Timestamp
    count: int = 1
    code: ErrorCode | None = None
    """Why it was refused."""
    message: str = ""
