"""What schemathesis is told besides the document.

The two precondition headers exclude each other; OpenAPI can't say so, and a request with both is
always 412, whatever else is in it. And nobody has the time to wait for minutes.
"""

from __future__ import annotations

from typing import Any

import schemathesis

from remote_api.schema import MAX_WAIT_S

__all__ = ["before_call", "upload_part"]

_LONGEST_WAIT_S = 2


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Leave one of the two headers, and wait for a moment only."""
    data = getattr(getattr(case.meta, "phase", None), "data", None)
    headers = case.headers or {}
    # A case that is about a header (its absence, say) must go out as it is.
    about = str(getattr(data, "parameter_location", "")).rpartition(".")[2].lower()
    if about != "header" and "If-Match" in headers and "If-None-Match" in headers:
        del headers["If-Match" if case.method == "PUT" else "If-None-Match"]
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | float) and _LONGEST_WAIT_S < wait <= MAX_WAIT_S:
        case.query["wait"] = _LONGEST_WAIT_S


@schemathesis.serializer("application/offset+octet-stream")
def upload_part(_: Any, value: Any) -> bytes:
    """A part of an upload is bytes, whatever was made up for it."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
