"""Disks of the host."""

from __future__ import annotations

from remote_api.http.exchange import Exchange, Response
from remote_api.http.lists import answer_list
from remote_api.http.routing import AnyRoute, BodyKind, NoBody, Reply, Route
from remote_api.resources.operations import STARTED, accepted
from remote_api.schema import (
    ListParameters,
    PageOf,
    WaitQuery,
    WipeDiskBody,
    list_parameters,
)
from vmkernel.control import requests
from vmkernel.model import (
    DISK_LISTING,
    Disk,
    ErrorCode,
    Role,
)

__all__ = ["ROUTES"]


async def list_disks(exchange: Exchange[ListParameters, NoBody]) -> Response:
    return await answer_list(exchange, requests.ListDisks)


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
        query=list_parameters(DISK_LISTING),
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
