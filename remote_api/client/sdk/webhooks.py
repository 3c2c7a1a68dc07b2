"""Webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

from remote_api.client.sdk.base import CREATE, MERGE_PATCH, Calls
from remote_api.client.sdk.queries import WebhookListQuery
from remote_api.schema import PageOf, SpecBody
from vmkernel.model import Webhook, WebhookAttempt, WebhookSpec

__all__ = ["WebhookCalls"]


class WebhookCalls(Calls):
    """Webhooks."""

    def webhooks(self, **query: Unpack[WebhookListQuery]) -> Iterator[Webhook]:
        """All webhooks."""
        return self._all("/v1/webhooks", PageOf[Webhook], query)

    def webhook(self, webhook_id: str) -> Webhook:
        """One webhook."""
        return self.transport.send("GET", f"/v1/webhooks/{webhook_id}").read(Webhook)

    def create_webhook(self, webhook_id: str, spec: WebhookSpec) -> Webhook:
        """Send events to a URL from now on."""
        path = f"/v1/webhooks/{webhook_id}"
        body = SpecBody(spec=spec)
        return self.transport.send("PUT", path, body=body, headers=CREATE).read(Webhook)

    def patch_webhook(self, webhook_id: str, patch: dict[str, Any]) -> Webhook:
        """Change a webhook's spec by a merge patch."""
        path = f"/v1/webhooks/{webhook_id}"
        return self.transport.send("PATCH", path, body={"spec": patch}, headers=MERGE_PATCH).read(
            Webhook
        )

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook."""
        self.transport.send("DELETE", f"/v1/webhooks/{webhook_id}")

    def ping_webhook(self, webhook_id: str) -> WebhookAttempt:
        """Send a test event now; what became of it."""
        path = f"/v1/webhooks/{webhook_id}/ping"
        return self.transport.send("POST", path, wait_s=120.0).read(WebhookAttempt)
