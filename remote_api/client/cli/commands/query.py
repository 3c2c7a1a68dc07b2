"""`mica query`: any request of the API, with the pinned certificate and the token of a context."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import click
import msgspec

from remote_api.client.cli import output
from remote_api.client.cli.session import Session, pass_session, print_value
from remote_api.client.sdk.base import CREATE, MERGE_PATCH

__all__ = ["COMMANDS"]

_JSON = "json"


@click.command("query")
@click.argument(
    "method", type=click.Choice(["GET", "POST", "PUT", "PATCH", "DELETE"], case_sensitive=False)
)
@click.argument("path")
@click.option("--data", metavar="JSON", help="Body of the request: JSON, or @FILE.")
@click.option("--create", is_flag=True, help="Only create: send `If-None-Match: *`.")
@click.option("--if-match", metavar="ETAG", help="Only change what has this ETag or revision.")
@pass_session
def query(
    session: Session, method: str, path: str, data: str | None, create: bool, if_match: str | None
) -> None:
    """Send a request to the API and show its answer.

    PATH is a path of the API, such as /v1/vms, and may have a query. The answer is shown as JSON,
    or as YAML with -o yaml; a PATCH is sent as a merge patch.
    """
    parts = urlsplit(path)
    if parts.netloc or not parts.path.startswith("/"):
        raise click.UsageError(f"{path}: give the path alone, such as /v1/vms")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    if len(dict(pairs)) != len(pairs):
        raise click.UsageError(f"{path}: a parameter can be given once")
    headers = dict(CREATE) if create else {}
    if method.upper() == "PATCH":
        headers |= MERGE_PATCH
    if if_match is not None:
        headers["if-match"] = if_match if if_match.startswith(('"', "*")) else f'"{if_match}"'
    with session.mica() as mica:
        answer = mica.transport.send(
            method.upper(),
            parts.path,
            parameters=dict(pairs),
            body=None if data is None else _body(data),
            headers=headers,
        )
    kind = (answer.header("content-type") or "").partition(";")[0]
    if kind.endswith(_JSON):
        print_value(session, msgspec.json.decode(answer.body))
    elif answer.body:
        output.print_paragraph(answer.body.decode(errors="replace").rstrip("\n"))


def _body(text: str) -> dict[str, Any]:
    try:
        raw = Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
        return msgspec.json.decode(raw, type=dict[str, Any])
    except OSError as error:
        raise click.UsageError(f"--data {text}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise click.UsageError("--data: it must be a JSON object, or @FILE with one") from error


COMMANDS = (query,)
