"""The `mica token` commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from remote_api.client.cli import output
from remote_api.client.cli.list_options import given_query, list_options
from remote_api.client.cli.output import Columns, listed
from remote_api.client.cli.parameters import choice_of
from remote_api.client.cli.session import (
    Session,
    pass_session,
    show_object,
)
from remote_api.client.cli.verbs import (
    delete_command,
    list_command,
    object_argument,
    show_command,
)
from vmkernel.model import (
    TOKEN_LISTING,
    Role,
    TokenSpec,
)

__all__ = ["COMMANDS"]


@click.group("token")
def token_group() -> None:
    """Manage API tokens and their roles."""


_LINES: Columns = (
    ("id", lambda t: t.id),
    ("role", lambda t: t.spec.role),
    ("expires", lambda t: t.spec.expires_at),
    ("description", lambda t: t.spec.description),
    ("created", lambda t: t.created_at),
)
token_group.add_command(
    list_command(
        lambda mica, **given: mica.tokens(**given_query(given)),
        listed(_LINES, "id", "role", "expires", "description"),
        text="List tokens, without their secrets.",
        parameters=list_options(TOKEN_LISTING),
        lines=_LINES,
    )
)
token_group.add_command(
    show_command(
        lambda mica: mica.whoami(), _LINES, name="whoami", text="Show the token that you use."
    )
)
token_group.add_command(
    delete_command(
        "token",
        lambda mica, token_id: mica.delete_token(token_id),
        text="Delete tokens. Requests with them are refused from then on.",
        kept="Requests with it are refused from then on.",
    )
)


@token_group.command("create")
@object_argument("token")
@click.option(
    "--role",
    type=choice_of(Role),
    required=True,
    help="What the token may do.",
)
@click.option("--description", default="", help="Free text, such as who uses the token.")
@click.option(
    "--expires-at", metavar="TIME", help="Expiry time in UTC, such as 2027-01-01T00:00:00Z."
)
@click.option(
    "--expires-in",
    "days",
    metavar="DAYS",
    type=click.FloatRange(min=0, min_open=True, max=36500),
    help="Expiry in this many days (default: never).",
)
@pass_session
def create_token(
    session: Session,
    token_id: str,
    role: str,
    description: str,
    expires_at: str | None,
    days: float | None,
) -> None:
    """Create a token and print its secret.

    The secret is not shown again.
    """
    if days is not None:
        if expires_at is not None:
            raise click.UsageError("--expires-at and --expires-in are mutually exclusive")
        when = datetime.now(UTC) + timedelta(days=days)
        expires_at = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    spec = TokenSpec(role=Role(role), description=description, expires_at=expires_at)
    with session.mica() as mica:
        issued = mica.create_token(token_id, spec)
    if session.json:
        show_object(session, issued)
    else:
        output.print_line(issued.secret)


COMMANDS = (token_group,)
