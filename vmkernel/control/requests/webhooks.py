"""Webhooks; their URLs may hold secrets, so that administrators alone see them."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from vmkernel.control.requests.base import Done, ListRequest, Request
from vmkernel.model import (
    WEBHOOK_LISTING,
    Listing,
    Role,
    Slug,
    Webhook,
    WebhookAttempt,
    WebhookSpec,
)

__all__ = [
    "CreateWebhook",
    "DeleteWebhook",
    "GetWebhook",
    "ListWebhooks",
    "PingWebhook",
    "UpdateWebhook",
]

Revision = Annotated[int, msgspec.Meta(ge=1)]


class ListWebhooks(ListRequest, frozen=True, kw_only=True, tag="webhook.list"):
    """All webhooks, without secrets."""

    LISTING: ClassVar[Listing] = WEBHOOK_LISTING
    ROLE: ClassVar[Role | None] = Role.ADMIN


class GetWebhook(Request[Webhook], frozen=True, kw_only=True, tag="webhook.get"):
    """One webhook, without its secret."""

    ROLE: ClassVar[Role | None] = Role.ADMIN
    READ_ONLY: ClassVar[bool] = True

    id: Slug


class CreateWebhook(Request[Webhook], frozen=True, kw_only=True, tag="webhook.create"):
    """Make a webhook; durable before the reply."""

    DRY_RUN: ClassVar[bool] = True
    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
    spec: WebhookSpec


class UpdateWebhook(Request[Webhook], frozen=True, kw_only=True, tag="webhook.update"):
    """Change a webhook; the secret `***` keeps the one that there is."""

    DRY_RUN: ClassVar[bool] = True
    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
    spec: WebhookSpec
    revision: Revision


class DeleteWebhook(Request[Done], frozen=True, kw_only=True, tag="webhook.delete"):
    """Delete a webhook; what waits for it is dropped."""

    DRY_RUN: ClassVar[bool] = True
    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
    revision: Revision | None = None


class PingWebhook(Request[WebhookAttempt], frozen=True, kw_only=True, tag="webhook.ping"):
    """Send a test event now, once."""

    ROLE: ClassVar[Role | None] = Role.ADMIN

    id: Slug
