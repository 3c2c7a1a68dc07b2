"""Images (uploads are in uploads.py)."""

from __future__ import annotations

import msgspec

from remote_api.http.conditions import check_version, version_of
from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.routing import AnyRoute, Condition, NoBody, Reply, Route
from remote_api.schema import (
    ListParameters,
    NoQuery,
    PageOf,
    list_parameters,
)
from vmkernel.control import requests
from vmkernel.model import (
    IMAGE_LISTING,
    ErrorCode,
    Image,
    Role,
)

__all__ = ["ROUTES", "TAGS", "image_response"]


async def list_images(exchange: Exchange[ListParameters, NoBody]) -> Response:
    return await answer_list(exchange, requests.ListImages)


async def get_image(exchange: Exchange[NoQuery, NoBody]) -> Response:
    return image_response(await exchange.call(requests.GetImage(id=exchange.id)))


def image_response(image: Image, *, status: int = 200, location: str | None = None) -> Response:
    """An image's answer, with its ETag."""
    return json_response(image, status=status, version=_version(image), location=location)


def _version(image: Image) -> str:
    return version_of(image.id.encode(), image.created_at.encode(), msgspec.json.encode(image.spec))


async def delete_image(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Delete an image that no VM names."""

    async def current() -> str:
        return _version(await exchange.call(requests.GetImage(id=exchange.id)))

    await check_version(exchange.precondition, current)
    await exchange.call(requests.DeleteImage(id=exchange.id))
    return Response(status=204)


TAGS = {"images": "ISO images, disk templates, kernels and initrds."}
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/images",
        name="listImages",
        summary="All images, of one datastore or of all, ordered by id",
        handler=list_images,
        query=list_parameters(IMAGE_LISTING),
        replies=(Reply(status=200, description="A page of images.", body=PageOf[Image]),),
    ),
    Route(
        method="GET",
        path="/v1/images/{id}",
        name="getImage",
        summary="One image",
        details="What it is, where it came from, and which virtual machines name it.",
        handler=get_image,
        replies=(Reply(status=200, description="The image.", body=Image, etag=True),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        method="DELETE",
        path="/v1/images/{id}",
        name="deleteImage",
        summary="Delete an image that no virtual machine names",
        handler=delete_image,
        role=Role.OPERATOR,
        condition=Condition.MATCH,
        replies=(Reply(status=204, description="It is gone."),),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.IN_USE),
    ),
)
