"""What every answer has: its fixed headers, and the form of a failure."""

from __future__ import annotations

import msgspec

from remote_api.http.exchange import Response
from remote_api.http.problems import PROBLEM_TYPE, problem_document
from remote_api.schema import ApiError

__all__ = ["encoded_headers", "problem_response"]

_FIXED_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


def problem_response(error: ApiError, request_id: str) -> Response:
    """The answer for a failure."""
    headers = dict(error.headers)
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="mica"'
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    return Response(
        status=error.status,
        body=msgspec.json.encode(problem_document(error, request_id)),
        media_type=PROBLEM_TYPE,
        headers=headers,
    )


def encoded_headers(response: Response, request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer as ASGI takes them."""
    headers = [
        *_FIXED_HEADERS,
        (b"x-request-id", request_id.encode("ascii")),
        *(
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in response.headers.items()
        ),
    ]
    if response.media_type is not None:
        headers.append((b"content-type", response.media_type.encode("ascii")))
    return headers
