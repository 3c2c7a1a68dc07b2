"""Webhooks: events sent to a URL, signed."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, Printable, Record, ShortText, Slug, Timestamp
from vmkernel.model.listing import Column, Listing

__all__ = [
    "WEBHOOK_LISTING",
    "Webhook",
    "WebhookAttempt",
    "WebhookFilter",
    "WebhookSpec",
    "WebhookState",
    "WebhookStatus",
]

Wanted = Annotated[
    tuple[Annotated[Printable, msgspec.Meta(min_length=1, max_length=340)], ...],
    msgspec.Meta(max_length=16),
]


class WebhookFilter(Record, frozen=True, kw_only=True):
    """Which events are wanted; what is empty lets all pass. As of the event stream."""

    types: Annotated[Wanted, msgspec.Meta(examples=[["vm.*", "datastore.space"]])] = ()
    """Types of events; `*` is any text."""
    subjects: Annotated[Wanted, msgspec.Meta(examples=[["vm/web"]])] = ()
    """`KIND` or `KIND/ID`."""
    labels: Annotated[Wanted, msgspec.Meta(examples=[["env=prod"]])] = ()
    """`KEY=VALUE`, or `KEY` for any value; all of them."""


class WebhookSpec(Record, frozen=True, kw_only=True):
    """What is sent, and where."""

    url: Annotated[
        str,
        msgspec.Meta(
            max_length=2048,
            pattern=r"^https?://[!-~]+$(?!\n)",
            examples=["https://hooks.example/mica"],
        ),
    ]
    """HTTPS, or HTTP, to another host. Redirects are not followed."""
    secret: Annotated[
        str,
        msgspec.Meta(
            max_length=100,
            pattern=r"^(whsec_[A-Za-z0-9+/]{32,88}={0,2}|\*\*\*)$(?!\n)",
            examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        ),
    ]
    """Signs each delivery: `whsec_` and 24 to 64 bytes in Base64. Answers have `***` in its
    place; sent back, that keeps it."""
    filter: WebhookFilter = WebhookFilter()
    enabled: bool = True
    """If not, nothing is sent, and what was waiting is dropped."""
    description: ShortText = ""

    def __repr__(self) -> str:
        """Without the secret, and the URL, which may hold one."""
        return f"WebhookSpec(enabled={self.enabled})"


class WebhookState(OpenEnum):
    """How deliveries go."""

    NEW = "new"
    """Nothing was sent since the host's start."""
    OK = "ok"
    FAILING = "failing"
    """The last attempt failed; it is repeated."""
    DISABLED = "disabled"


class WebhookAttempt(Record, frozen=True, kw_only=True):
    """One attempt to deliver."""

    at: Timestamp
    delivered: bool
    status: int | None = None
    """The receiver's HTTP status, if it answered."""
    error: str | None = None
    """Why it was not delivered."""


class WebhookStatus(Record, frozen=True, kw_only=True):
    """What became of the deliveries since the host's start."""

    state: WebhookState = WebhookState.NEW
    last_attempt: WebhookAttempt | None = None
    last_delivered_at: Timestamp | None = None
    consecutive_failures: int = 0
    failing_since: Timestamp | None = None
    next_attempt_at: Timestamp | None = None
    """When it is tried again, while it fails."""
    waiting: int = 0
    """Events that are not delivered yet."""
    delivered: int = 0
    dropped: int = 0
    """Events that were given up: too many waited, they were tried too often or became too old."""
    disabled_reason: str | None = None
    """Why the host disabled it; `enabled: true` tries again."""


class Webhook(Record, frozen=True, kw_only=True):
    """A receiver of events."""

    id: Slug
    revision: int
    created_at: Timestamp
    spec: WebhookSpec
    status: WebhookStatus


WEBHOOK_LISTING = Listing(
    item=Webhook,
    filters={
        "id": Column("id"),
        "state": Column("status.state"),
        "enabled": Column("spec.enabled"),
        "description": Column("spec.description"),
    },
    sort={
        "id": Column("id"),
        "state": Column("status.state"),
        "created_at": Column("created_at"),
    },
    summary=("spec.url", "status.state", "status.waiting", "status.delivered"),
)
