"""Claiming a host; roles and tokens."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import ObjectBody, PageOf
from vmkernel.model import (
    AuditRecord,
    Printable,
    Record,
    Slug,
    TokenSpec,
)

__all__ = ["AuditPage", "ClaimBody", "TokenBody"]


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
