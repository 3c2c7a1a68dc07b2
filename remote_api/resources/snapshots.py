"""Snapshots of virtual machines."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.routing import AnyRoute, BodyKind, Condition, NoBody, Reply, Route
from remote_api.resources.operations import STARTED, accepted
from remote_api.schema import (
    ListParameters,
    NoQuery,
    PageOf,
    RevertQuery,
    SnapshotBody,
    WaitQuery,
    list_parameters,
)
from vmkernel.control import requests
from vmkernel.model import (
    SNAPSHOT_LISTING,
    ErrorCode,
    Role,
    Snapshot,
)

__all__ = ["ROUTES"]

_ONE = "/v1/vms/{id}/snapshots/{snapshot}"


async def list_snapshots(exchange: Exchange[ListParameters, NoBody]) -> Response:
    """The snapshots of one virtual machine."""
    return await answer_list(exchange, requests.ListSnapshots, vm=exchange.id)


async def get_snapshot(exchange: Exchange[NoQuery, NoBody]) -> Response:
    found = await exchange.call(requests.GetSnapshot(vm=exchange.id, id=_name(exchange)))
    return json_response(found)


async def create_snapshot(exchange: Exchange[WaitQuery, SnapshotBody]) -> Response:
    operation = await exchange.call(
        requests.CreateSnapshot(
            vm=exchange.id,
            id=_name(exchange),
            spec=exchange.body.spec,
        )
    )
    return await accepted(exchange, operation, exchange.query.wait)


async def revert(exchange: Exchange[RevertQuery, NoBody]) -> Response:
    """Go back to a snapshot."""
    start = exchange.query.start
    operation = await exchange.call(
        requests.RevertToSnapshot(
            vm=exchange.id, id=_name(exchange), start=None if start is UNSET else start
        )
    )
    return await accepted(exchange, operation, exchange.query.wait)


async def delete_snapshot(exchange: Exchange[WaitQuery, NoBody]) -> Response:
    operation = await exchange.call(requests.DeleteSnapshot(vm=exchange.id, id=_name(exchange)))
    return await accepted(exchange, operation, exchange.query.wait)


def _name(exchange: Exchange[Any, Any]) -> str:
    return exchange.parameters["snapshot"]


_PROBLEMS = (
    ErrorCode.NOT_FOUND,
    ErrorCode.CONFLICT,
    ErrorCode.IN_USE,
    ErrorCode.UNSUPPORTED,
)

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/vms/{id}/snapshots",
        name="listSnapshots",
        summary="The snapshots of a virtual machine, ordered by id",
        handler=list_snapshots,
        query=list_parameters(SNAPSHOT_LISTING),
        replies=(Reply(status=200, description="A page of snapshots.", body=PageOf[Snapshot]),),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    ),
    Route(
        method="GET",
        path=_ONE,
        name="getSnapshot",
        summary="One snapshot",
        details="What it holds, its parent, and whether it is complete.",
        handler=get_snapshot,
        replies=(Reply(status=200, description="The snapshot.", body=Snapshot),),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    ),
    Route(
        method="PUT",
        path=_ONE,
        name="createSnapshot",
        summary="Take a snapshot of a virtual machine, running or stopped",
        handler=create_snapshot,
        role=Role.OPERATOR,
        query=WaitQuery,
        body=SnapshotBody,
        body_kind=BodyKind.JSON,
        examples={"with memory": {"spec": {"description": "Before the update", "memory": True}}},
        condition=Condition.CREATE,
        replies=STARTED,
        problems=(*_PROBLEMS, ErrorCode.ALREADY_EXISTS, ErrorCode.INSUFFICIENT_SPACE),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/revert",
        name="revertToSnapshot",
        summary="Revert to a snapshot; later changes that no other snapshot has are lost",
        handler=revert,
        role=Role.OPERATOR,
        query=RevertQuery,
        replies=STARTED,
        problems=(*_PROBLEMS, ErrorCode.INVALID),
    ),
    Route(
        method="DELETE",
        path=_ONE,
        name="deleteSnapshot",
        summary="Delete a snapshot; later snapshots stay",
        handler=delete_snapshot,
        role=Role.OPERATOR,
        query=WaitQuery,
        replies=STARTED,
        problems=_PROBLEMS,
    ),
)
