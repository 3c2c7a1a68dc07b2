"""Disks of the host."""

from __future__ import annotations

from remote_api.routes.convert import to_wire
from remote_api.routes.exchange import Exchange, Response, json_response
from remote_api.routes.paging import next_page, page_start
from remote_api.routes.registry import AnyRoute, NoBody, Reply, Route
from remote_api.schema import (
    DiskPage,
    PageQuery,
)
from vmkernel.control import requests

__all__ = ["ROUTES"]


async def list_disks(exchange: Exchange[PageQuery, NoBody]) -> Response:
    """The host's disks."""
    page = await exchange.call(
        requests.ListDisks(
            limit=exchange.query.limit, after=page_start(exchange.path, exchange.query)
        )
    )
    ids = [item.id for item in page.items]
    return json_response(to_wire(page, DiskPage, next=next_page(exchange.path, ids, page.more)))


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/host/disks",
        name="listHostDisks",
        summary="The host's disks and what they hold",
        handler=list_disks,
        query=PageQuery,
        replies=(Reply(status=200, description="A page of disks.", body=DiskPage),),
    ),
)
