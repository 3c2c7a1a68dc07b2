"""What a client prefers (RFC 7240): to wait for the work, or to be answered at once."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from remote_api.http.exchange import Headers
from remote_api.schema.operations import MAX_WAIT_S

__all__ = ["apply_preferences"]

_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,9})\"?\Z", re.I)
_APPLIED = "preference-applied"


def apply_preferences(headers: Headers, query: Any) -> tuple[Any, dict[str, str]]:
    """The query with the preferences in it, and the headers that say which were followed.

    `wait` of the query comes first: it is a demand. As RFC 7240 section 2 has it, whatever can't
    be understood or followed is ignored, and of a preference that is given twice the first counts.
    """
    if b"prefer" not in headers or "wait" not in query.__struct_fields__ or query.wait:
        return query, {}
    wait_s: int | None = None
    at_once = False
    text = b",".join(headers[b"prefer"]).decode("latin-1")
    for preference in (part.partition(";")[0].strip() for part in text.split(",")):
        if (match := _WAIT.match(preference)) and wait_s is None:
            wait_s = min(int(match[1]), MAX_WAIT_S)
        at_once = at_once or preference.lower() == "respond-async"
    applied = ["respond-async"] * at_once + [f"wait={wait_s}"] * (wait_s is not None)
    if not applied:
        return query, {}
    query = msgspec.structs.replace(query, wait=float(wait_s or 0))
    return query, {_APPLIED: ", ".join(applied)}
