"""The `mica context` commands."""

from __future__ import annotations

import click
import msgspec

from remote_api.client.cli.completing import context_names
from remote_api.client.cli.contexts import ContextStore, KnownHost
from remote_api.client.cli.current_context import how_to_use, replace_option, use_option
from remote_api.client.cli.output import Columns, listed
from remote_api.client.cli.session import (
    Session,
    confirm,
    pass_session,
    say,
    show_object,
    show_rows,
)
from remote_api.client.cli.verbs import layout_options, yes_option
from remote_api.client.errors import ConflictError
from remote_api.client.http.pinning import (
    normal_address,
    normal_fingerprint,
)

__all__ = ["COMMANDS"]


@click.group("context")
def context_group() -> None:
    """Manage contexts: known hosts and their tokens."""


class _Row(msgspec.Struct, frozen=True):
    """One context, without its token."""

    name: str
    current: bool
    address: str
    fingerprint_sha256: str | None
    has_token: bool


_LINES: Columns = (
    ("name", lambda row: row.name),
    ("current", lambda row: row.current),
    ("address", lambda row: row.address),
    ("fingerprint", lambda row: row.fingerprint_sha256),
    ("token", lambda row: row.has_token),
)


def _rows(store: ContextStore) -> list[_Row]:
    current, hosts = store.load()
    return [
        _Row(name, name == current, known.address, known.fingerprint_sha256, bool(known.token))
        for name, known in sorted(hosts.items())
    ]


@context_group.command("list")
@layout_options
@pass_session
def list_contexts(session: Session) -> None:
    """List contexts."""
    columns = listed(_LINES, "name", "current", "address")
    show_rows(session, _rows(session.store), columns, more=listed(_LINES, "fingerprint", "token"))


@context_group.command("show")
@click.argument("name", required=False, shell_complete=context_names)
@pass_session
def show_context(session: Session, name: str | None) -> None:
    """Show a context (default: the one in use), without its token."""
    if name is None and session.from_environment:
        raise ConflictError(
            "commands use MICA_HOST of the environment now, not a context; see `mica context list`"
        )
    wanted = name or session.host_name
    session.store.get(wanted)
    rows = _rows(session.store)
    found = next(row for row in rows if (row.name == wanted if wanted else row.current))
    show_object(session, found, _LINES)


@context_group.command("use")
@click.argument("name", shell_complete=context_names)
@pass_session
def use_context(session: Session, name: str) -> None:
    """Make NAME the current context."""
    session.store.use(name)
    say(session, f"{name} is the current context now ({session.store.get(name).address})")


@context_group.command("rename")
@click.argument("name", shell_complete=context_names)
@click.argument("new_name")
@pass_session
def rename_context(session: Session, name: str, new_name: str) -> None:
    """Rename a context on this computer."""
    session.store.rename(name, new_name)
    say(session, f"context {name} renamed to {new_name}")


@context_group.command("forget")
@click.argument("name", shell_complete=context_names)
@yes_option
@pass_session
def forget_context(session: Session, name: str, yes: bool) -> None:
    """Remove a context and its token from this computer.

    The token stays valid on the host until `mica token delete` removes it there.
    """
    session.store.get(name)
    if not yes:
        confirm(f"Remove context {name} and its token from this computer? The host keeps both.")
    session.store.forget(name)
    now = session.store.load()[0]
    left = "" if now else "; there is no current context now: see `mica context use`"
    say(session, f"context {name} removed{left}")


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
@use_option
@replace_option
@pass_session
def add_context(
    session: Session, name: str, host: str, fingerprint: str, token: str, use: bool, replace: bool
) -> None:
    """Add a context for HOST. It becomes the current one if there is none yet.

    It needs a token that was created with `mica token create`.
    """
    known = KnownHost(
        address=normal_address(host),
        token=token,
        fingerprint_sha256=normal_fingerprint(fingerprint),
    )
    current = session.store.put(name, known, use=use, replace=replace)
    say(session, f"context {name} added for {known.address}{how_to_use(name, current)}")


COMMANDS = (context_group,)
