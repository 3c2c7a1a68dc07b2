"""Completion of names by the shell: of contexts here, of objects on the host.

A request for names has half a second, and its answer is kept for a few seconds, so that pressing
Tab again costs nothing. Whatever fails completes nothing: an error would garble the prompt.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from click.shell_completion import CompletionItem

from remote_api.client.cli.contexts import KnownHost, default_store
from remote_api.client.cli.given import given_globally
from remote_api.client.errors import MisuseError
from remote_api.client.http.names import checked_name
from remote_api.client.http.pinning import PinnedContext, normal_address

__all__ = ["context_names", "names_of"]

_WAIT_S = 0.5
"""Longer than a host in the same network takes, and short for a person who pressed Tab."""
_KEEP_S = 5.0
_PATHS = {
    "vm": "/v1/vms",
    "volume": "/v1/volumes",
    "image": "/v1/images",
    "datastore": "/v1/datastores",
    "token": "/v1/tokens",
    "snapshot": "/v1/vms/{vm_id}/snapshots",
}
"""Where the names of a noun are; the noun is what the parameter shows in the help."""


def context_names(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of contexts that begin so."""
    with suppress(Exception):
        _, hosts = default_store().load()
        return [CompletionItem(name) for name in sorted(hosts) if name.startswith(incomplete)]
    return []


def names_of(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names on the host that begin so, of the noun that the parameter takes."""
    noun = (parameter.metavar or "").lower().removesuffix("...").partition("[")[0]
    with suppress(Exception):
        if (path := _PATHS.get(noun)) is not None:
            values = {
                key: checked_name(str(v)) for key, v in context.params.items() if key == "vm_id"
            }
            taken = context.params.get(parameter.name or "") or ()
            names = _names(_host(context), path.format(**values))
            return [
                CompletionItem(name)
                for name in names
                if name.startswith(incomplete) and name not in taken
            ]
    return []


def _host(context: click.Context) -> KnownHost:
    chosen = given_globally(context).get("host_name")
    address, store = os.environ.get("MICA_HOST"), default_store()
    if address and chosen is None and address not in store.load()[1]:
        return KnownHost(
            address=normal_address(address),
            token=os.environ.get("MICA_TOKEN"),
            fingerprint_sha256=os.environ.get("MICA_FINGERPRINT"),
        )
    return store.get(chosen or address)


def _names(host: KnownHost, path: str) -> list[str]:
    kept = _cache_file()
    key = f"{host.address} {path}"
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(kept.read_text())
        if found["key"] == key and 0 <= time.time() - found["at"] < _KEEP_S:
            return [str(name) for name in found["names"]]
    names = _asked(host, path)
    with suppress(OSError):
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = kept.with_suffix(f".{os.getpid()}")
        made.write_text(json.dumps({"key": key, "at": time.time(), "names": names}))
        made.chmod(0o600)
        made.replace(kept)
    return names


def _asked(host: KnownHost, path: str) -> list[str]:
    """One page of names, by the standard library alone: importing more takes longer than this."""
    parts = urlsplit(host.address)
    connection = http.client.HTTPSConnection(
        parts.hostname or "",
        parts.port,
        timeout=_WAIT_S,
        context=PinnedContext(host.fingerprint_sha256) if host.fingerprint_sha256 else None,
    )
    headers = {"authorization": f"Bearer {host.token}"} if host.token else {}
    try:
        connection.request("GET", f"{path}?limit=200", headers=headers)
        answer = connection.getresponse()
        page: dict[str, Any] = json.loads(answer.read()) if answer.status == 200 else {}
    finally:
        connection.close()
    return sorted(filter(_is_name, (item["id"] for item in page.get("items", ()))))


def _is_name(text: object) -> bool:
    """False for what a shell could take for more than a word."""
    try:
        return isinstance(text, str) and bool(checked_name(text))
    except MisuseError:
        return False


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mica" / "names.json"
