"""Claim and tokens."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from vmkernel.control.requests.base import Done, ListRequest, Request
from vmkernel.model import (
    AUDIT_LISTING,
    TOKEN_LISTING,
    IssuedToken,
    Listing,
    Role,
    Slug,
    Token,
    TokenSpec,
)
from vmkernel.model.base import Printable

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


class ListTokens(ListRequest, frozen=True, kw_only=True, tag="access.tokens"):
    """All tokens, without secrets."""

    LISTING: ClassVar[Listing] = TOKEN_LISTING
    ROLE: ClassVar[Role | None] = Role.ADMIN


class ListAudit(ListRequest, frozen=True, kw_only=True, tag="access.audit"):
    """The audit trail, newest first."""

    LISTING: ClassVar[Listing] = AUDIT_LISTING
    ROLE: ClassVar[Role | None] = Role.ADMIN


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
