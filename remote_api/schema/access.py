"""Claiming a host; roles and tokens."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import Slug, Timestamp, WireModel

__all__ = ["ClaimBody", "IssuedToken", "Role", "Token", "TokenBody", "TokenPage", "TokenSpec"]


class Role(StrEnum):
    """What a token may do; each role includes the ones after it."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


class ClaimBody(WireModel, frozen=True, kw_only=True):
    """The one-time claim code that the console shows."""

    code: Annotated[
        str, Meta(min_length=1, max_length=64, description="The claim code, as the console shows.")
    ]
    token_id: Annotated[Slug, Meta(description="The id of the admin token that is made.")] = "admin"  # noqa: S105 - an id


class TokenSpec(WireModel, frozen=True, kw_only=True):
    """What a token is wanted to be."""

    role: Annotated[Role, Meta(description="What the token may do.")]
    description: Annotated[str, Meta(max_length=256, description="What the token is for.")] = ""
    expires_at: (
        Annotated[Timestamp, Meta(description="When it ends; never where it is null.")] | None
    ) = None


class TokenBody(WireModel, frozen=True, kw_only=True):
    """A token to make."""

    spec: TokenSpec


class Token(WireModel, frozen=True, kw_only=True):
    """A token without its secret."""

    id: Slug
    created_at: Timestamp
    spec: TokenSpec


class IssuedToken(WireModel, frozen=True, kw_only=True):
    """A token with its secret, which is shown here and never again."""

    token: Token
    secret: Annotated[str, Meta(description="The whole bearer token: `mica_<id>_<secret>`.")]

    def __repr__(self) -> str:
        """Without the secret."""
        return f"IssuedToken(token={self.token!r})"


class TokenPage(WireModel, frozen=True, kw_only=True):
    """A part of the tokens."""

    items: tuple[Token, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]
