"""What schemathesis is told besides the document: the two precondition headers exclude each other.

OpenAPI can't say so, and a request with both is always 412, whatever else is in it.
"""

from __future__ import annotations

from typing import Any

import schemathesis

__all__ = ["before_call"]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Leave one of the two headers."""
    headers = case.headers or {}
    if "If-Match" in headers and "If-None-Match" in headers:
        del headers["If-Match" if case.method == "PUT" else "If-None-Match"]
