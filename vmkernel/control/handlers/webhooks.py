"""Webhooks."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.lists import answer_from
from vmkernel.control.requests import Done, Page
from vmkernel.control.requests.webhooks import (
    CreateWebhook,
    DeleteWebhook,
    GetWebhook,
    ListWebhooks,
    PingWebhook,
    UpdateWebhook,
)
from vmkernel.model import Webhook, WebhookAttempt
from vmkernel.webhooks import WebhookService

__all__ = ["register"]


def register(dispatcher: Dispatcher, webhooks: WebhookService) -> None:
    """Serve the requests about webhooks."""

    @dispatcher.handler
    async def list_webhooks(request: ListWebhooks, _: Caller) -> Page:
        return await answer_from(request, webhooks.list())

    @dispatcher.handler
    async def get_webhook(request: GetWebhook, _: Caller) -> Webhook:
        return webhooks.get(request.id)

    @dispatcher.handler
    async def create_webhook(request: CreateWebhook, caller: Caller) -> Webhook:
        return await webhooks.create(request.id, request.spec, actor=caller.actor)

    @dispatcher.handler
    async def update_webhook(request: UpdateWebhook, caller: Caller) -> Webhook:
        return await webhooks.update(request.id, request.spec, request.revision, actor=caller.actor)

    @dispatcher.handler
    async def delete_webhook(request: DeleteWebhook, caller: Caller) -> Done:
        await webhooks.delete(request.id, request.revision, actor=caller.actor)
        return Done()

    @dispatcher.handler
    async def ping_webhook(request: PingWebhook, caller: Caller) -> WebhookAttempt:
        return await webhooks.ping(request.id, actor=caller.actor)
