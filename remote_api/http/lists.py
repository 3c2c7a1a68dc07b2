"""Answers of lists: the vmkernel's JSON as it comes, and the token of the next page."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from remote_api.http.exchange import Exchange, Response
from remote_api.http.paging import next_page, page_start
from remote_api.schema import ListParameters, asked_of
from vmkernel.control.requests import ListRequest
from vmkernel.model import ListQuery

__all__ = ["answer_list"]


async def answer_list(
    exchange: Exchange[Any, Any], request: type[ListRequest], **of_what: str
) -> Response:
    """The page of a list that is asked for; `of_what` are the request's own fields."""
    parameters: ListParameters = exchange.query
    listing = request.LISTING
    assert parameters.LISTING is listing
    query = asked_of(listing, msgspec.structs.asdict(parameters))
    digest = _digest(query)
    found = await exchange.call(
        request(
            limit=parameters.limit,
            after=page_start(exchange.path, digest, parameters),
            query=query,
            **of_what,
        )
    )
    token = msgspec.json.encode(next_page(exchange.path, digest, found.next))
    return Response(
        status=200,
        body=b'{"items":[%b],"next":%b}' % (found.items, token),
        media_type="application/json",
    )


def _digest(query: ListQuery) -> str:
    """What tells one query from others; the order of its parameters doesn't count."""
    ordered = msgspec.structs.replace(
        query, filters=dict(sorted(query.filters.items())), label=tuple(sorted(query.label))
    )
    return blake2b(msgspec.json.encode(ordered), digest_size=8).hexdigest()
