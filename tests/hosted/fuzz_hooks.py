"""What schemathesis is told besides the document.

What a projection leaves out is missing by the schema of the whole, so none is made here
(test_lists.py makes them). The two precondition headers exclude each other; OpenAPI can't say so,
and a request with both is always 412, whatever else is in it. And nobody has the time to wait for
minutes.
"""

from __future__ import annotations

import re
from typing import Any

import schemathesis

from remote_api.schema import MAX_WAIT_S
from vmkernel.model import ListView

__all__ = ["before_call", "upload_part"]

_LONGEST_WAIT_S = 2
_PATHS = re.compile(r"[a-z_.,0-9]+\Z")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Leave one of the two headers, and wait for a moment only."""
    data = getattr(getattr(case.meta, "phase", None), "data", None)
    headers = case.headers or {}
    # A case that is about a header (its absence, say) must go out as it is.
    about = str(getattr(data, "parameter_location", "")).rpartition(".")[2].lower()
    if about != "header" and "If-Match" in headers and "If-None-Match" in headers:
        del headers["If-Match" if case.method == "PUT" else "If-None-Match"]
    query = case.query or {}
    if query.get("view") == ListView.SUMMARY:
        query["view"] = ListView.FULL.value
    if _PATHS.match(str(query.get("fields", ""))):
        del query["fields"]
    wait = query.get("wait")
    if isinstance(wait, int | float) and _LONGEST_WAIT_S < wait <= MAX_WAIT_S:
        case.query["wait"] = _LONGEST_WAIT_S


@schemathesis.serializer("application/offset+octet-stream")
def upload_part(_: Any, value: Any) -> bytes:
    """A part of an upload is bytes, whatever was made up for it."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
