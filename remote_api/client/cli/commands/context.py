"""The `mica context` commands."""

from __future__ import annotations

import click

from remote_api.client.cli.contexts import KnownHost
from remote_api.client.cli.session import (
    Session,
    pass_session,
    show_rows,
)
from remote_api.client.http.pinning import (
    normal_address,
    normal_fingerprint,
)

__all__ = ["COMMANDS"]


@click.group("context")
def context_group() -> None:
    """Manage contexts: known hosts and their tokens."""


@context_group.command("list")
@pass_session
def list_contexts(session: Session) -> None:
    """List contexts."""
    current, hosts = session.store.load()
    rows = [
        {"name": name, "current": name == current, "address": known.address}
        for name, known in sorted(hosts.items())
    ]
    show_rows(
        session,
        rows,
        (
            ("NAME", lambda row: row["name"]),
            ("CURRENT", lambda row: row["current"]),
            ("ADDRESS", lambda row: row["address"]),
        ),
    )


@context_group.command("use")
@click.argument("name")
@pass_session
def use_context(session: Session, name: str) -> None:
    """Make NAME the current context."""
    session.store.use(name)


@context_group.command("forget")
@click.argument("name")
@pass_session
def forget_context(session: Session, name: str) -> None:
    """Remove a context and its token from this computer."""
    session.store.forget(name)


@context_group.command("add")
@click.argument("name")
@click.argument("host")
@click.option(
    "--fingerprint", required=True, metavar="FINGERPRINT", help="TLS fingerprint of the host."
)
@click.option(
    "--token",
    envvar="MICA_TOKEN",
    prompt=True,
    hide_input=True,
    help="Secret of a token of the host (default: asked for).",
)
@pass_session
def add_context(session: Session, name: str, host: str, fingerprint: str, token: str) -> None:
    """Add a context for HOST, and make it the current one.

    It needs a token that was created with `mica token create`.
    """
    session.store.put(
        name,
        KnownHost(
            address=normal_address(host),
            token=token,
            fingerprint_sha256=normal_fingerprint(fingerprint),
        ),
    )


COMMANDS = (context_group,)
