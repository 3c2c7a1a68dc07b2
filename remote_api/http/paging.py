"""Opaque page tokens: where a list continues, in a form that only this module reads."""

from __future__ import annotations

import base64
import binascii

import msgspec

from remote_api.schema import ApiError, PageQuery
from vmkernel.control.requests import SortValue

__all__ = ["next_page", "page_start"]

Place = tuple[SortValue, ...]


class _PageToken(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True
):
    path: str
    query: str
    """A digest of what was asked for besides `limit` and `page`."""
    after: Place


def next_page(path: str, query: str, after: Place | None) -> str | None:
    """The token for what follows a place, or None at the end."""
    if after is None:
        return None
    raw = msgspec.json.encode(_PageToken(path=path, query=query, after=after))
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def page_start(path: str, query: str, parameters: PageQuery) -> Place | None:
    """The place after which the asked page begins, or None for the first page.

    Raises ApiError (422) for a token that doesn't come from this list, or from another query.
    """
    if isinstance(parameters.page, msgspec.UnsetType):
        return None
    try:
        padded = parameters.page + "=" * (-len(parameters.page) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        token = msgspec.json.decode(raw, type=_PageToken)
    except (binascii.Error, ValueError) as error:
        raise _stale() from error
    if token.path != path or not token.after:
        raise _stale()
    if token.query != query:
        raise ApiError.field(
            "page",
            "This page belongs to another query; send it with the filters, `label`, `sort`,"
            " `fields` and `view` of the page before, or start again without it.",
        )
    return token.after


def _stale() -> ApiError:
    return ApiError.field("page", "This is not a page of this list; start again without it.")
