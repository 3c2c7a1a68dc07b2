"""Claiming a host; roles and tokens."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from remote_api.schema.base import (
    ObjectBody,
    PageQuery,
    Printable,
    SentTimestamp,
    ShortText,
    Slug,
    Timestamp,
    WireEnum,
    WireModel,
)
from remote_api.schema.operations import Subject

__all__ = [
    "AuditOutcome",
    "AuditPage",
    "AuditQuery",
    "AuditRecord",
    "ClaimBody",
    "IssuedToken",
    "Role",
    "Token",
    "TokenBody",
    "TokenPage",
    "TokenSpec",
]


class Role(WireEnum):
    """What a token may do; each role includes the ones after it."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


class ClaimBody(WireModel, frozen=True, kw_only=True):
    """The one-time claim code that the console shows."""

    code: Annotated[
        Printable,
        Meta(min_length=1, max_length=64, description="The claim code, as the console shows."),
    ]
    token_id: Annotated[Slug, Meta(description="The id of the admin token that is made.")] = "admin"  # noqa: S105 - an id


class TokenSpec(WireModel, frozen=True, kw_only=True):
    """What a token is wanted to be."""

    role: Annotated[Role, Meta(description="What the token may do.")]
    description: Annotated[ShortText, Meta(description="What the token is for.")] = ""
    expires_at: (
        Annotated[SentTimestamp, Meta(description="When it ends; never where it is null.")] | None
    ) = None


class TokenBody(ObjectBody, frozen=True, kw_only=True):
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


class AuditOutcome(WireEnum):
    """What became of a request."""

    CHANGED = "changed"
    READ = "read"
    DENIED = "denied"


class AuditRecord(WireModel, frozen=True, kw_only=True):
    """One kind of request by one actor about one object, and how often it came."""

    id: Annotated[str, Meta(description="Opaque; ordered by `first_at`.")]
    outcome: Annotated[
        AuditOutcome,
        Meta(
            description="`changed`: it was carried out, or its operation has begun; `read`: it"
            " handed out what a guest holds; `denied`: it was refused."
        ),
    ]
    request: Annotated[str, Meta(description="What was asked for.", examples=["vm.start"])]
    subject: Subject
    actor: Annotated[str, Meta(description="The token; `anonymous` without a good one.")]
    origin: Annotated[str, Meta(description="The client's address.")]
    first_at: Timestamp
    last_at: Timestamp
    count: Annotated[
        int, Meta(description="How often it came between the two times, at most 5 minutes apart.")
    ] = 1
    code: Annotated[str | None, Meta(description="Why it was refused, such as `forbidden`.")] = None
    message: Annotated[str, Meta(description="Why it was refused, in words.")] = ""


class AuditPage(WireModel, frozen=True, kw_only=True):
    """A part of the audit trail, newest first."""

    items: tuple[AuditRecord, ...]
    next: Annotated[str | None, Meta(description="The `page` that goes on; null at the end.")]


class AuditQuery(PageQuery, frozen=True, kw_only=True):
    """Which records of the audit trail."""

    actor: (
        Annotated[str, Meta(max_length=256, description="Only what this token did.")] | UnsetType
    ) = UNSET
    outcome: Annotated[AuditOutcome | UnsetType, Meta(description="Only what ended so.")] = UNSET
