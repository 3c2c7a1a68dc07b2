"""Datastores."""

from __future__ import annotations

from remote_api.routes.conditions import etag
from remote_api.routes.convert import from_wire, to_wire
from remote_api.routes.exchange import Exchange, Response, json_response
from remote_api.routes.operations import accepted
from remote_api.routes.paging import next_page, page_start
from remote_api.routes.registry import AnyRoute, BodyKind, Condition, NoBody, Reply, Route
from remote_api.schema import (
    Datastore,
    DatastoreBody,
    DatastorePage,
    NoQuery,
    Operation,
    PageQuery,
    ProblemCode,
    Role,
    WaitQuery,
)
from vmkernel.control import model, requests

__all__ = ["ROUTES"]


async def list_datastores(exchange: Exchange[PageQuery, NoBody]) -> Response:
    """All datastores."""
    page = await exchange.call(
        requests.ListDatastores(
            limit=exchange.query.limit, after=page_start(exchange.path, exchange.query)
        )
    )
    token = next_page(exchange.path, [item.id for item in page.items], page.more)
    return json_response(to_wire(page, DatastorePage, next=token))


async def get_datastore(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """One datastore."""
    found = await exchange.call(requests.GetDatastore(id=exchange.id))
    return json_response(to_wire(found, Datastore), etag=etag(found.revision))


async def create_datastore(exchange: Exchange[WaitQuery, DatastoreBody]) -> Response:
    """Make a datastore, or take over the one that a disk holds."""
    operation = await exchange.call(
        requests.CreateDatastore(
            id=exchange.id,
            spec=from_wire(exchange.body.spec, model.DatastoreSpec),
            wipe_serial=exchange.body.wipe_serial,
        )
    )
    return await accepted(exchange, operation, exchange.query.wait)


async def delete_datastore(exchange: Exchange[WaitQuery, NoBody]) -> Response:
    """Unmount and forget a datastore."""
    operation = await exchange.call(requests.DeleteDatastore(id=exchange.id))
    return await accepted(exchange, operation, exchange.query.wait)


_STARTED = (
    Reply(status=202, description="It is under way.", body=Operation, location=True),
    Reply(status=200, description="It has finished.", body=Operation, location=True),
)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/datastores",
        name="listDatastores",
        summary="All datastores, ordered by id",
        handler=list_datastores,
        query=PageQuery,
        replies=(Reply(status=200, description="A page of datastores.", body=DatastorePage),),
    ),
    Route(
        method="GET",
        path="/v1/datastores/{id}",
        name="getDatastore",
        summary="One datastore",
        handler=get_datastore,
        replies=(Reply(status=200, description="The datastore.", body=Datastore, etag=True),),
        problems=(ProblemCode.NOT_FOUND,),
    ),
    Route(
        method="PUT",
        path="/v1/datastores/{id}",
        name="createDatastore",
        summary="Make a datastore on a disk, or take over the one that the disk holds",
        handler=create_datastore,
        role=Role.ADMIN,
        query=WaitQuery,
        body=DatastoreBody,
        body_kind=BodyKind.JSON,
        condition=Condition.CREATE,
        replies=_STARTED,
        problems=(
            ProblemCode.NOT_FOUND,
            ProblemCode.ALREADY_EXISTS,
            ProblemCode.CONFLICT,
            ProblemCode.IN_USE,
            ProblemCode.WIPE_NOT_CONFIRMED,
            ProblemCode.UNSUPPORTED,
        ),
    ),
    Route(
        method="DELETE",
        path="/v1/datastores/{id}",
        name="deleteDatastore",
        summary="Unmount and forget a datastore; its data stay on the disk",
        handler=delete_datastore,
        role=Role.ADMIN,
        query=WaitQuery,
        replies=_STARTED,
        problems=(ProblemCode.NOT_FOUND, ProblemCode.CONFLICT, ProblemCode.IN_USE),
    ),
)
