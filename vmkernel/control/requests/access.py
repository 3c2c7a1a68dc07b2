"""Claim and tokens."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from vmkernel.control.requests.base import Done, ListRequest, Page, Request
from vmkernel.model import (
    AuditOutcome,
    AuditRecord,
    IssuedToken,
    Role,
    Slug,
    Token,
    TokenSpec,
)
from vmkernel.model.base import Printable, ShortText

__all__ = [
    "Claim",
    "CreateToken",
    "DeleteToken",
    "GetToken",
    "ListAudit",
    "ListTokens",
    "WhoAmI",
]


class Claim(Request[IssuedToken], frozen=True, kw_only=True, tag="access.claim"):
    """Exchange the one-time claim code for an admin token."""

    ROLE: ClassVar[Role | None] = None

    code: Annotated[Printable, msgspec.Meta(min_length=1, max_length=64)]
    token_id: Slug = "admin"  # noqa: S105 - the id, not the secret

    def __repr__(self) -> str:
        """Without the code."""
        return f"Claim(token_id={self.token_id!r})"


class ListTokens(ListRequest[Page[Token]], frozen=True, kw_only=True, tag="access.tokens"):
    """All tokens, without secrets."""

    ROLE: ClassVar[Role | None] = Role.ADMIN


class ListAudit(ListRequest[Page[AuditRecord]], frozen=True, kw_only=True, tag="access.audit"):
    """The audit trail, newest first: `after` is the id of the last record of the previous page."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    actor: ShortText | None = None
    outcome: AuditOutcome | None = None


class GetToken(Request[Token], frozen=True, kw_only=True, tag="access.token"):
    """One token, without its secret."""

    ROLE: ClassVar[Role | None] = Role.ADMIN
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class WhoAmI(Request[Token], frozen=True, kw_only=True, tag="access.whoami"):
    """The token of this call; fails like any other request if there is none."""

    READ_ONLY: ClassVar[bool] = True


class CreateToken(Request[IssuedToken], frozen=True, kw_only=True, tag="access.create-token"):
    """Make a token; its secret is shown once, here."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
    spec: TokenSpec


class DeleteToken(Request[Done], frozen=True, kw_only=True, tag="access.delete-token"):
    """Revoke a token at once."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
