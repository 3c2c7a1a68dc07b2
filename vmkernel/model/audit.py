"""The audit trail: who changed, read or was refused what."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, Record, Timestamp
from vmkernel.model.listing import Column, Listing
from vmkernel.model.operations import Subject

__all__ = ["AUDIT_LISTING", "AuditOutcome", "AuditRecord"]


class AuditOutcome(OpenEnum):
    """What happened to a request."""

    CHANGED = "changed"
    """It was carried out, or its operation has begun."""
    READ = "read"
    """It changed nothing and handed out what a guest holds."""
    DENIED = "denied"


class AuditRecord(Record, frozen=True, kw_only=True):
    """One kind of request by one actor about one object, and how often it was made."""

    id: str
    """Opaque; ordered by `first_at`."""
    outcome: AuditOutcome
    """`changed`: it was carried out, or its operation has begun; `read`: it handed out what a guest
    holds; `denied`: it was refused."""
    request: Annotated[str, msgspec.Meta(examples=["vm.start"])]
    """The kind of request."""
    subject: Subject
    actor: str
    """The ID of the token; `anonymous` if there was no valid one."""
    origin: str
    """The client's address."""
    first_at: Timestamp
    last_at: Timestamp
    count: int = 1
    """How often it was made between the two times, which are at most 5 minutes apart."""
    code: str | None = None
    """Why it was refused, such as `forbidden`."""
    message: str = ""
    """Why it was refused, in words."""


AUDIT_LISTING = Listing(
    item=AuditRecord,
    filters={
        "actor": Column("actor", text="Only what this token did."),
        "outcome": Column("outcome", text="Only what ended so."),
        "request": Column("request"),
        "subject": Column("subject.id", text="The id of what it was about."),
        "subject_kind": Column("subject.kind"),
        "origin": Column("origin"),
        "code": Column("code"),
    },
    sort={
        "actor": Column("actor"),
        "request": Column("request"),
        "first_at": Column("first_at"),
        "last_at": Column("last_at"),
        "count": Column("count"),
    },
    summary=("outcome", "request", "subject", "actor", "last_at", "count"),
    newest_first=True,
)
