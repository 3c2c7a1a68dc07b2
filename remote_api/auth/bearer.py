"""The `Authorization: Bearer` header (RFC 6750 section 2.1); the scheme in any letter case."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote_api.schema import ApiError
from vmkernel.model import ErrorCode

__all__ = ["bearer_token", "user_of"]

_MAX_BYTES = 256
_BEARER = re.compile(rb"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)\Z")


def bearer_token(headers: Sequence[bytes]) -> str:
    """The token of a request's Authorization header, which must occur exactly once.

    Raises ApiError (401) if it is missing or malformed, without repeating its content.
    """
    if not headers:
        raise ApiError(
            ErrorCode.UNAUTHENTICATED,
            "The request carries no token; send `Authorization: Bearer mica_…`.",
        )
    match = _BEARER.match(headers[0]) if len(headers[0]) <= _MAX_BYTES else None
    if len(headers) > 1 or match is None:
        raise ApiError(
            ErrorCode.UNAUTHENTICATED,
            "The Authorization header is not `Bearer` and one token.",
        )
    return match[1].decode("ascii")


def user_of(token: str | None) -> str:
    """The id that a token names; whether it is good, the vmkernel alone knows."""
    _, _, rest = (token or "").partition("_")
    return rest.partition("_")[0]
