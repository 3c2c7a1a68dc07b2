"""Who may do what: roles and tokens."""

from __future__ import annotations

from vmkernel.model.base import OpenEnum, Record, SentTimestamp, ShortText, Slug, Timestamp
from vmkernel.model.listing import Column, Listing

__all__ = ["IssuedToken", "Role", "TOKEN_LISTING", "Token", "TokenSpec"]


class Role(OpenEnum):
    """What a token may do; each role includes the ones after it."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"

    def includes(self, needed: Role) -> bool:
        """True if this role may do what `needed` may."""
        ranks = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
        return ranks.index(self) >= ranks.index(needed)


class TokenSpec(Record, frozen=True, kw_only=True):
    """What a token is wanted to be."""

    role: Role
    """What the token may do."""
    description: ShortText = ""
    """What the token is for."""
    expires_at: SentTimestamp | None = None
    """When it expires; never if null."""


class Token(Record, frozen=True, kw_only=True):
    """A token without its secret."""

    id: Slug
    created_at: Timestamp
    spec: TokenSpec


class IssuedToken(Record, frozen=True, kw_only=True):
    """A token with its secret, which is shown only here."""

    token: Token
    secret: str
    """The whole bearer token: `mica_<id>_<secret>`."""

    def __repr__(self) -> str:
        """Without the secret."""
        return f"IssuedToken(token={self.token!r})"


TOKEN_LISTING = Listing(
    item=Token,
    filters={
        "id": Column("id"),
        "role": Column("spec.role"),
        "description": Column("spec.description"),
    },
    sort={
        "id": Column("id"),
        "role": Column("spec.role"),
        "created_at": Column("created_at"),
        "expires_at": Column("spec.expires_at"),
    },
    summary=("spec.role", "spec.expires_at"),
)
