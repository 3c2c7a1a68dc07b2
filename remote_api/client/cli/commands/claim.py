"""`mica claim`."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

from remote_api.client.cli import output
from remote_api.client.cli.contexts import KnownHost
from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import (
    Session,
    confirm,
    pass_session,
    say,
    show_object,
)
from remote_api.client.errors import DeclinedError, UntrustedError
from remote_api.client.http.pinning import (
    fetch_fingerprint,
    normal_address,
    normal_fingerprint,
    shown_fingerprint,
)
from remote_api.client.sdk import Mica

__all__ = ["COMMANDS"]


@click.command()
@click.argument("host")
@click.option("--code", required=True, help="The claim code on the host's screen.")
@click.option("--fingerprint", help="The TLS fingerprint on the host's screen.")
@click.option("--name", help="The name to know the host by; its address where none is given.")
@click.option(
    "--token-id", type=NAME, default="admin", show_default=True, help="The id of the new token."
)
@pass_session
def claim(
    session: Session, host: str, code: str, fingerprint: str | None, name: str | None, token_id: str
) -> None:
    """Take possession of the new HOST, and remember it.

    Without --fingerprint, the one that the host shows is printed for comparison with its screen,
    and nothing secret is sent before it is confirmed.
    """
    address = normal_address(host)
    if fingerprint is None:
        seen = fetch_fingerprint(address)
        output.print_paragraph(
            f"The TLS fingerprint of {address} is\n  {shown_fingerprint(seen)}", err=True
        )
        try:
            confirm("Is it the one on the host's screen?", option="--fingerprint")
        except DeclinedError as error:
            raise UntrustedError("the fingerprint was not confirmed; nothing was sent") from error
        fingerprint = seen
    pinned = normal_fingerprint(fingerprint)
    with Mica(address, fingerprint=pinned, timeout_s=session.timeout_s) as mica:
        issued = mica.claim(code, token_id=token_id)
    known_as = name or urlsplit(address).netloc
    session.store.put(
        known_as, KnownHost(address=address, token=issued.secret, fingerprint_sha256=pinned)
    )
    if session.json:
        show_object(session, issued.token)
    say(session, f"{address} is yours; it is known as {known_as} ({session.store.path})")


COMMANDS = (claim,)
