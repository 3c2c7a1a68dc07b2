"""The `mica webhook` commands."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import click

from remote_api.client.cli import output
from remote_api.client.cli.list_options import given_query, list_options
from remote_api.client.cli.output import Columns, listed
from remote_api.client.cli.session import Session, pass_session, show_object
from remote_api.client.cli.verbs import (
    delete_command,
    list_command,
    object_argument,
    show_command,
)
from vmkernel.model import WEBHOOK_LISTING, WebhookFilter, WebhookSpec

__all__ = ["COMMANDS"]


@click.group("webhook")
def webhook_group() -> None:
    """Manage webhooks: events sent to a URL."""


_LINES: Columns = (
    ("id", lambda w: w.id),
    ("url", lambda w: w.spec.url),
    ("state", lambda w: w.status.state),
    ("types", lambda w: list(w.spec.filter.types)),
    ("subjects", lambda w: list(w.spec.filter.subjects)),
    ("labels", lambda w: list(w.spec.filter.labels)),
    ("description", lambda w: w.spec.description),
    ("waiting", lambda w: w.status.waiting),
    ("delivered", lambda w: w.status.delivered),
    ("dropped", lambda w: w.status.dropped),
    ("failures in a row", lambda w: w.status.consecutive_failures),
    ("failing since", lambda w: w.status.failing_since),
    ("last attempt", lambda w: w.status.last_attempt and w.status.last_attempt.at),
    ("last error", lambda w: w.status.last_attempt and w.status.last_attempt.error),
    ("next attempt", lambda w: w.status.next_attempt_at),
    ("disabled because", lambda w: w.status.disabled_reason),
    ("created", lambda w: w.created_at),
)
webhook_group.add_command(
    list_command(
        lambda mica, **given: mica.webhooks(**given_query(given)),
        listed(_LINES, "id", "url", "state", "waiting", "delivered", "last error"),
        text="List webhooks and how their deliveries go.",
        parameters=list_options(WEBHOOK_LISTING),
        lines=_LINES,
    )
)
webhook_group.add_command(
    show_command(
        lambda mica, webhook_id: mica.webhook(webhook_id),
        _LINES,
        text="Show a webhook, without its secret, and how its deliveries go.",
        parameters=(object_argument("webhook"),),
    )
)
webhook_group.add_command(
    delete_command(
        "webhook",
        lambda mica, webhook_id: mica.delete_webhook(webhook_id),
        text="Delete webhooks. Events that are not delivered yet are dropped.",
        kept="Events that are not delivered yet are dropped.",
    )
)


@webhook_group.command("create")
@object_argument("webhook")
@click.option("--url", required=True, help="Where to send events: HTTPS, or HTTP.")
@click.option(
    "--secret",
    metavar="SECRET",
    help="Signs the deliveries: whsec_ and Base64 (default: a new one, which is printed).",
)
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this type, or 'vm.*'.")
@click.option(
    "--subject", "subjects", multiple=True, metavar="KIND[/ID]", help="Only about this: 'vm/web'."
)
@click.option(
    "-l", "--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Only with this label."
)
@click.option("--description", default="", help="Free text, such as who receives it.")
@pass_session
def create_webhook(
    session: Session,
    webhook_id: str,
    url: str,
    secret: str | None,
    types: tuple[str, ...],
    subjects: tuple[str, ...],
    labels: tuple[str, ...],
    description: str,
) -> None:
    """Send events to a URL from now on.

    Without --secret, a new secret is printed: give it to the receiver. It is not shown again.
    """
    made = secret is None
    secret = secret or "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    spec = WebhookSpec(
        url=url,
        secret=secret,
        filter=WebhookFilter(types=types, subjects=subjects, labels=labels),
        description=description,
    )
    with session.mica() as mica:
        webhook = mica.create_webhook(webhook_id, spec)
    if session.json:
        output.print_json({"webhook": webhook, "secret": secret} if made else webhook)
    elif made:
        output.print_line(secret)


@webhook_group.command("set")
@object_argument("webhook")
@click.option("--url", help="Another URL.")
@click.option("--secret", metavar="SECRET", help="Another secret: whsec_ and Base64.")
@click.option("--enable/--disable", "enabled", default=None, help="Whether events are sent.")
@pass_session
def set_webhook(
    session: Session, webhook_id: str, url: str | None, secret: str | None, enabled: bool | None
) -> None:
    """Change a webhook.

    --disable drops what is not delivered yet.
    """
    wanted = {"url": url, "secret": secret, "enabled": enabled}
    patch: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if not patch:
        raise click.UsageError("nothing to change; give --url, --secret, --enable or --disable")
    with session.mica() as mica:
        webhook = mica.patch_webhook(webhook_id, patch)
    if session.json:
        show_object(session, webhook)


@webhook_group.command("ping")
@object_argument("webhook")
@pass_session
def ping_webhook(session: Session, webhook_id: str) -> None:
    """Send a test event now.

    The exit status is 1 if the receiver did not take it.
    """
    with session.mica() as mica:
        attempt = mica.ping_webhook(webhook_id)
    if session.json:
        show_object(session, attempt)
    else:
        output.print_line(attempt.error or f"delivered: the receiver answered {attempt.status}")
    if not attempt.delivered:
        raise click.exceptions.Exit(1)


COMMANDS = (webhook_group,)
