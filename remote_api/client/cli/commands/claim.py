"""`mica claim`."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

from remote_api.client.cli import output
from remote_api.client.cli.contexts import KnownHost
from remote_api.client.cli.current_context import how_to_use, replace_option, use_option
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
@click.option("--code", required=True, metavar="CODE", help="Claim code from the host's screen.")
@click.option(
    "--fingerprint", metavar="FINGERPRINT", help="TLS fingerprint from the host's screen."
)
@click.option(
    "--name", metavar="NAME", help="Name of the new context (default: the host's address)."
)
@click.option(
    "--token-id", type=NAME, default="admin", show_default=True, help="Name of the new admin token."
)
@use_option
@replace_option
@pass_session
def claim(
    session: Session,
    host: str,
    code: str,
    fingerprint: str | None,
    name: str | None,
    token_id: str,
    use: bool,
    replace: bool,
) -> None:
    """Claim a new host and add a context for it. It becomes the current one if there is none yet.

    The context holds the host's first admin token. Without --fingerprint, the fingerprint that
    the host presents is printed. Compare it with the host's screen; no secret is sent before
    you confirm it.
    """
    address = normal_address(host)
    known_as = name or urlsplit(address).netloc
    if not replace:
        session.store.check_free(known_as)  # the claim code is good only once
    if fingerprint is None:
        seen = fetch_fingerprint(address)
        output.print_paragraph(
            f"The TLS fingerprint of {address} is\n  {shown_fingerprint(seen)}", err=True
        )
        try:
            confirm("Is this the fingerprint on the host's screen?", option="--fingerprint")
        except DeclinedError as error:
            raise UntrustedError(
                "fingerprint not confirmed; nothing was sent to the host"
            ) from error
        fingerprint = seen
    pinned = normal_fingerprint(fingerprint)
    with Mica(address, fingerprint=pinned, timeout_s=session.timeout_s) as mica:
        issued = mica.claim(code, token_id=token_id)
    known = KnownHost(address=address, token=issued.secret, fingerprint_sha256=pinned)
    current = session.store.put(known_as, known, use=use, replace=replace)
    if session.json:
        show_object(session, issued.token)
    say(
        session,
        f"{address} claimed; context {known_as} added to {session.store.path}"
        + how_to_use(known_as, current),
    )


COMMANDS = (claim,)
