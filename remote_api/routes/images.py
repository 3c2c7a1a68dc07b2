"""Images (their upload stands in uploads.py)."""

from __future__ import annotations

from msgspec import UNSET

from remote_api.routes.convert import to_wire
from remote_api.routes.exchange import Exchange, Response, json_response
from remote_api.routes.paging import next_page, page_start
from remote_api.routes.registry import AnyRoute, NoBody, Reply, Route
from remote_api.schema import (
    Image,
    ImagePage,
    NoQuery,
    ProblemCode,
    Role,
    StoredPageQuery,
)
from vmkernel.control import requests

__all__ = ["ROUTES"]


async def list_images(exchange: Exchange[StoredPageQuery, NoBody]) -> Response:
    """All images."""
    query = exchange.query
    page = await exchange.call(
        requests.ListImages(
            limit=query.limit,
            after=page_start(exchange.path, query),
            datastore=None if query.datastore is UNSET else query.datastore,
        )
    )
    token = next_page(exchange.path, [item.id for item in page.items], page.more)
    return json_response(to_wire(page, ImagePage, next=token))


async def get_image(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """One image."""
    return json_response(to_wire(await exchange.call(requests.GetImage(id=exchange.id)), Image))


async def delete_image(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Delete an image that no VM names."""
    await exchange.call(requests.DeleteImage(id=exchange.id))
    return Response(status=204)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/images",
        name="listImages",
        summary="All images, of one datastore or of all, ordered by id",
        handler=list_images,
        query=StoredPageQuery,
        replies=(Reply(status=200, description="A page of images.", body=ImagePage),),
    ),
    Route(
        method="GET",
        path="/v1/images/{id}",
        name="getImage",
        summary="One image",
        handler=get_image,
        replies=(Reply(status=200, description="The image.", body=Image),),
        problems=(ProblemCode.NOT_FOUND,),
    ),
    Route(
        method="DELETE",
        path="/v1/images/{id}",
        name="deleteImage",
        summary="Delete an image that no virtual machine names",
        handler=delete_image,
        role=Role.OPERATOR,
        replies=(Reply(status=204, description="It is gone."),),
        problems=(ProblemCode.NOT_FOUND, ProblemCode.CONFLICT, ProblemCode.IN_USE),
    ),
)
