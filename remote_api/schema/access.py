"""Claiming a host; roles and tokens."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from remote_api.schema.base import ObjectBody, PageOf, PageQuery
from vmkernel.model import (
    AuditOutcome,
    AuditRecord,
    Printable,
    Record,
    Slug,
    TokenSpec,
)

__all__ = ["AuditPage", "AuditQuery", "ClaimBody", "TokenBody"]


class ClaimBody(Record, frozen=True, kw_only=True):
    """The one-time claim code that the console shows."""

    code: Annotated[Printable, Meta(min_length=1, max_length=64)]
    """The claim code, as the console shows."""
    token_id: Slug = "admin"  # noqa: S105 - an id
    """The id of the admin token that is made."""


class TokenBody(ObjectBody, frozen=True, kw_only=True):
    """A token to make."""

    spec: TokenSpec


class AuditPage(PageOf[AuditRecord], frozen=True, kw_only=True):
    """A part of the audit trail, newest first."""


class AuditQuery(PageQuery, frozen=True, kw_only=True):
    """Which records of the audit trail."""

    actor: Annotated[str, Meta(max_length=256)] | UnsetType = UNSET
    """Only what this token did."""
    outcome: AuditOutcome | UnsetType = UNSET
    """Only what ended so."""
