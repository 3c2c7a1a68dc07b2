"""Who may do what: roles and tokens."""

from __future__ import annotations

from enum import StrEnum

from vmkernel.model.base import Record, ShortText, Slug, Timestamp

__all__ = ["IssuedToken", "Role", "Token", "TokenSpec"]


class Role(StrEnum):
    """What a token may do; each role includes the ones below it."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"

    def includes(self, needed: Role) -> bool:
        """True where this role may do what `needed` may."""
        ranks = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
        return ranks.index(self) >= ranks.index(needed)


class TokenSpec(Record, frozen=True, kw_only=True):
    """What a token is wanted to be."""

    role: Role
    description: ShortText = ""
    expires_at: Timestamp | None = None


class Token(Record, frozen=True, kw_only=True):
    """A token without its secret."""

    id: Slug
    created_at: Timestamp
    spec: TokenSpec


class IssuedToken(Record, frozen=True, kw_only=True):
    """A token with its secret, shown once."""

    token: Token
    secret: str
    """The whole bearer token: `mica_<id>_<secret>`."""
