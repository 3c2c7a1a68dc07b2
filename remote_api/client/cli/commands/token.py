"""The `mica token` commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from remote_api.client.cli import output
from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import (
    Session,
    pass_session,
    say,
    show_object,
    show_rows,
)
from vmkernel.model import (
    Role,
    TokenSpec,
)

__all__ = ["COMMANDS"]


@click.group("token")
def token_group() -> None:
    """Tokens."""


@token_group.command("list")
@pass_session
def list_tokens(session: Session) -> None:
    """List tokens, without their secrets."""
    with session.mica() as mica:
        show_rows(
            session,
            mica.tokens(),
            (
                ("ID", lambda t: t.id),
                ("ROLE", lambda t: t.spec.role),
                ("EXPIRES", lambda t: t.spec.expires_at),
                ("DESCRIPTION", lambda t: t.spec.description),
            ),
        )


@token_group.command("create")
@click.argument("token_id", type=NAME)
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.option("--description", default="")
@click.option("--expires-at", metavar="TIME", help="RFC 3339, UTC, such as 2027-01-01T00:00:00Z.")
@click.option(
    "--expires-in", "days", metavar="DAYS", type=click.FloatRange(min=0, min_open=True, max=36500)
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
    """Make a token and print its secret, which can't be shown again."""
    if days is not None:
        if expires_at is not None:
            raise click.UsageError("--expires-at and --expires-in exclude each other")
        when = datetime.now(UTC) + timedelta(days=days)
        expires_at = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    spec = TokenSpec(role=Role(role), description=description, expires_at=expires_at)
    with session.mica() as mica:
        issued = mica.create_token(token_id, spec)
    if session.json:
        show_object(session, issued)
    else:
        output.print_line(issued.secret)


@token_group.command("delete")
@click.argument("token_id", type=NAME)
@pass_session
def delete_token(session: Session, token_id: str) -> None:
    """Revoke a token."""
    with session.mica() as mica:
        mica.delete_token(token_id)
    say(session, f"token {token_id} is revoked")


@token_group.command("whoami")
@pass_session
def whoami(session: Session) -> None:
    """Show the token that is in use."""
    with session.mica() as mica:
        show_object(
            session,
            mica.whoami(),
            (
                ("id", lambda t: t.id),
                ("role", lambda t: t.spec.role),
                ("expires", lambda t: t.spec.expires_at),
                ("description", lambda t: t.spec.description),
                ("created", lambda t: t.created_at),
            ),
        )


COMMANDS = (token_group,)
