"""Webhooks: events sent to a URL."""

from __future__ import annotations

from remote_api.http.conditions import Matching, expected_revision, mismatch
from remote_api.http.decode import decode_patch
from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.routing import AnyRoute, BodyKind, Condition, NoBody, Reply, Route
from remote_api.schema import ListParameters, NoQuery, PageOf, SpecBody, list_parameters
from vmkernel.control.requests.webhooks import (
    CreateWebhook,
    DeleteWebhook,
    GetWebhook,
    ListWebhooks,
    PingWebhook,
    UpdateWebhook,
)
from vmkernel.model import (
    WEBHOOK_LISTING,
    ErrorCode,
    Role,
    Webhook,
    WebhookAttempt,
    WebhookSpec,
)

__all__ = ["ROUTES", "TAGS"]

_PING_WAIT_S = 120.0
"""A receiver has 45 s, after those that wait for the same place."""


async def list_webhooks(exchange: Exchange[ListParameters, NoBody]) -> Response:
    """All webhooks."""
    return await answer_list(exchange, ListWebhooks)


async def get_webhook(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """One webhook."""
    webhook = await exchange.call(GetWebhook(id=exchange.id))
    return json_response(webhook, version=webhook.revision)


async def create_webhook(exchange: Exchange[NoQuery, SpecBody[WebhookSpec]]) -> Response:
    """Make a webhook."""
    webhook = await exchange.call(CreateWebhook(id=exchange.id, spec=exchange.body.spec))
    return json_response(webhook, status=201, version=webhook.revision, location=exchange.path)


async def patch_webhook(exchange: Exchange[NoQuery, SpecBody[WebhookSpec]]) -> Response:
    """Change a webhook."""
    known = await exchange.call(GetWebhook(id=exchange.id))
    expected = exchange.precondition
    if isinstance(expected, Matching) and not expected.admits(str(known.revision)):
        raise mismatch()
    body = decode_patch(exchange.raw_body, SpecBody(spec=known.spec), SpecBody[WebhookSpec])
    webhook = await exchange.call(
        UpdateWebhook(id=exchange.id, spec=body.spec, revision=known.revision)
    )
    return json_response(webhook, version=webhook.revision)


async def delete_webhook(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Delete a webhook."""

    async def current() -> int:
        return (await exchange.call(GetWebhook(id=exchange.id))).revision

    revision = await expected_revision(exchange.precondition, current)
    await exchange.call(DeleteWebhook(id=exchange.id, revision=revision))
    return Response(status=204)


async def ping_webhook(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Send a test event."""
    attempt = await exchange.call(PingWebhook(id=exchange.id), timeout_s=_PING_WAIT_S)
    return json_response(attempt)


TAGS = {"webhooks": "Events sent to a URL."}
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the specification's example
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/webhooks",
        name="listWebhooks",
        summary="All webhooks and how their deliveries go",
        handler=list_webhooks,
        role=Role.ADMIN,
        query=list_parameters(WEBHOOK_LISTING),
        replies=(Reply(status=200, description="A page of webhooks.", body=PageOf[Webhook]),),
    ),
    Route(
        method="GET",
        path="/v1/webhooks/{id}",
        name="getWebhook",
        summary="One webhook and how its deliveries go",
        handler=get_webhook,
        role=Role.ADMIN,
        replies=(Reply(status=200, description="The webhook.", body=Webhook, etag=True),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        method="PUT",
        path="/v1/webhooks/{id}",
        name="createWebhook",
        summary="Send events to a URL from now on",
        details="Each event is one POST of `{type, timestamp, data}`, whose `data` is the event as"
        " a viewer sees it, signed as the Standard Webhooks specification says: `webhook-id` is the"
        " same for all attempts (drop what you have had), `webhook-timestamp` is the attempt's time"
        " in seconds since 1970 (refuse what is older than five minutes), and `webhook-signature`"
        " is `v1,` and Base64 of the HMAC-SHA256 of `ID.TIMESTAMP.BODY` by the bytes of the secret"
        " behind `whsec_`. Answer 2xx within 15 seconds. Anything else is repeated after 5 seconds,"
        " 15, 45 and so on up to an hour (`Retry-After` is heeded), 12 times or for a day; 410"
        " disables the webhook, and so do five days without success. Deliveries outlast a restart"
        " of the host's services, may come twice, and not always in order.",
        handler=create_webhook,
        role=Role.ADMIN,
        body=SpecBody[WebhookSpec],
        body_kind=BodyKind.JSON,
        examples={
            "all about VMs in production": {
                "spec": {
                    "url": "https://hooks.example/mica",
                    "secret": _SECRET,
                    "filter": {"types": ["vm.*"], "labels": ["env=prod"]},
                }
            }
        },
        condition=Condition.CREATE,
        replies=(
            Reply(status=201, description="The webhook.", body=Webhook, etag=True, location=True),
        ),
        problems=(ErrorCode.ALREADY_EXISTS, ErrorCode.INSUFFICIENT_RESOURCES),
    ),
    Route(
        method="PATCH",
        path="/v1/webhooks/{id}",
        name="patchWebhook",
        summary="Change a webhook by a merge patch (RFC 7396)",
        details="What waits is sent to the new URL with the new secret. `enabled: false` drops it.",
        handler=patch_webhook,
        role=Role.ADMIN,
        body=SpecBody[WebhookSpec],
        body_kind=BodyKind.MERGE_PATCH,
        examples={"pause it": {"spec": {"enabled": False}}},
        condition=Condition.MATCH,
        replies=(Reply(status=200, description="The webhook.", body=Webhook, etag=True),),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.REVISION_MISMATCH),
    ),
    Route(
        method="DELETE",
        path="/v1/webhooks/{id}",
        name="deleteWebhook",
        summary="Delete a webhook; what waits for it is dropped",
        handler=delete_webhook,
        role=Role.ADMIN,
        condition=Condition.MATCH,
        replies=(Reply(status=204, description="It is gone."),),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.REVISION_MISMATCH),
    ),
    Route(
        method="POST",
        path="/v1/webhooks/{id}/ping",
        name="pingWebhook",
        dry_run=False,
        summary="Send a test event to a webhook now, once",
        details="The answer says whether the receiver took it; that it did not is no failure of"
        " this request.",
        handler=ping_webhook,
        role=Role.ADMIN,
        replies=(Reply(status=200, description="The attempt.", body=WebhookAttempt),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
)
