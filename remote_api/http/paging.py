"""Opaque page tokens: where a list goes on, in a form that only this module reads."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec

from remote_api.schema import ApiError, PageQuery

__all__ = ["next_page", "page_start"]


class _PageToken(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True
):
    path: str
    after: str


def next_page(path: str, ids: Sequence[str], more: bool) -> str | None:
    """The token for what follows the last of `ids`, or None at the end."""
    if not more or not ids:
        return None
    raw = msgspec.json.encode(_PageToken(path=path, after=ids[-1]))
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def page_start(path: str, query: PageQuery) -> str | None:
    """The id after which the asked page begins, or None for the first page.

    Raises ApiError (422) for a token that doesn't come from this list.
    """
    if isinstance(query.page, msgspec.UnsetType):
        return None
    try:
        padded = query.page + "=" * (-len(query.page) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        token = msgspec.json.decode(raw, type=_PageToken)
    except (binascii.Error, ValueError) as error:
        raise _stale() from error
    if token.path != path:
        raise _stale()
    return token.after


def _stale() -> ApiError:
    return ApiError.field("page", "This is not a page of this list; start again without it.")
