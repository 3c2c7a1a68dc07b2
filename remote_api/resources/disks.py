"""Disks of the host."""

from __future__ import annotations

from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.paging import next_page, page_start
from remote_api.http.routing import AnyRoute, BodyKind, NoBody, Reply, Route
from remote_api.resources.operations import STARTED, accepted
from remote_api.schema import (
    PageOf,
    PageQuery,
    WaitQuery,
    WipeDiskBody,
)
from vmkernel.control import requests
from vmkernel.model import (
    Disk,
    ErrorCode,
    Role,
)

__all__ = ["ROUTES"]


async def list_disks(exchange: Exchange[PageQuery, NoBody]) -> Response:
    """The host's disks."""
    page = await exchange.call(
        requests.ListDisks(
            limit=exchange.query.limit, after=page_start(exchange.path, exchange.query)
        )
    )
    ids = [item.id for item in page.items]
    return json_response(PageOf(items=page.items, next=next_page(exchange.path, ids, page.more)))


async def wipe_disk(exchange: Exchange[WaitQuery, WipeDiskBody]) -> Response:
    """Destroy all that a disk holds."""
    request = requests.WipeDisk(disk=exchange.body.disk, wipe_serial=exchange.body.wipe_serial)
    return await accepted(exchange, await exchange.call(request), exchange.query.wait)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/host/disks",
        name="listHostDisks",
        summary="The host's disks and what they hold",
        handler=list_disks,
        query=PageQuery,
        replies=(Reply(status=200, description="A page of disks.", body=PageOf[Disk]),),
    ),
    Route(
        method="POST",
        path="/v1/host/disks/wipe",
        name="wipeHostDisk",
        summary="Wipe a disk: destroy all data on it",
        handler=wipe_disk,
        role=Role.ADMIN,
        query=WaitQuery,
        body=WipeDiskBody,
        body_kind=BodyKind.JSON,
        examples={"say it twice": {"disk": "S3Z9NB0K123456", "wipe_serial": "S3Z9NB0K123456"}},
        replies=STARTED,
        problems=(ErrorCode.IN_USE, ErrorCode.UNSUPPORTED, ErrorCode.WIPE_NOT_CONFIRMED),
    ),
)
