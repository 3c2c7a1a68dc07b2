"""Downloads: an image's or a volume's file, whole or by Range, as the vmkernel streams it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from typing import Any

from remote_api.http.exchange import BrokenStreamError, Exchange, Response, json_response
from remote_api.http.ranges import Part, wanted_part
from remote_api.http.routing import AnyRoute, NoBody, Reply, Route
from remote_api.schema import DataMapQuery, HttpCode, NoQuery
from vmkernel.control import Stream, requests
from vmkernel.model import DataMap, ErrorCode, ImageFormat, MicaError, Role

__all__ = ["ROUTES", "parts_of"]

_PART_BYTES = 1 << 16
_STALL_S = 60.0
_SUFFIXES = {ImageFormat.LINUX_KERNEL: "kernel", ImageFormat.LINUX_INITRD: "initrd"}
_MEDIA_TYPE = "application/octet-stream"

Open = Callable[[int, int], requests.ReadImage | requests.ReadVolume]


async def head_image(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """What the download of an image would be."""
    part, headers, _ = await _image(exchange)
    return exchange.not_modified(headers["etag"]) or Response(
        status=200, media_type=_MEDIA_TYPE, headers=headers | part.headers
    )


async def download_image(exchange: Exchange[NoQuery, NoBody]) -> Response:
    part, headers, request = await _image(exchange)
    return await _stream(exchange, part, headers, request)


async def head_volume(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """What the download of a volume would be."""
    part, headers, _ = await _volume(exchange)
    return exchange.not_modified(headers["etag"]) or Response(
        status=200, media_type=_MEDIA_TYPE, headers=headers | part.headers
    )


async def download_volume(exchange: Exchange[NoQuery, NoBody]) -> Response:
    part, headers, request = await _volume(exchange)
    return await _stream(exchange, part, headers, request)


async def map_image(exchange: Exchange[DataMapQuery, NoBody]) -> Response:
    """Which parts of an image's file contain data."""
    found = await exchange.call(requests.GetImageMap(id=exchange.id, offset=exchange.query.offset))
    return json_response(found)


async def map_volume(exchange: Exchange[DataMapQuery, NoBody]) -> Response:
    """Which parts of a volume's file contain data."""
    found = await exchange.call(requests.GetVolumeMap(id=exchange.id, offset=exchange.query.offset))
    return json_response(found)


async def _image(exchange: Exchange[Any, Any]) -> tuple[Part, dict[str, str], Open]:
    image = await exchange.call(requests.GetImage(id=exchange.id))
    digest = base64.b64encode(bytes.fromhex(image.spec.sha256)).decode("ascii")
    part, headers = _describe(exchange, image.spec.size_bytes, image.spec.sha256, image.spec.format)
    headers["repr-digest"] = f"sha-256=:{digest}:"

    def request(offset: int, length: int) -> requests.ReadImage:
        return requests.ReadImage(id=exchange.id, offset=offset, length=length)

    return part, headers, request


async def _volume(exchange: Exchange[Any, Any]) -> tuple[Part, dict[str, str], Open]:
    data = await exchange.call(requests.GetVolumeData(id=exchange.id))
    kept = data.format or ImageFormat.RAW
    part, headers = _describe(exchange, data.size_bytes, data.etag, kept)

    def request(offset: int, length: int) -> requests.ReadVolume:
        return requests.ReadVolume(id=exchange.id, offset=offset, length=length)

    return part, headers, request


def _describe(
    exchange: Exchange[Any, Any], size: int, tag: str, kept: ImageFormat
) -> tuple[Part, dict[str, str]]:
    etag = f'"{tag}"'
    part = wanted_part(size, etag, exchange.header("Range"), exchange.header("If-Range"))
    suffix = _SUFFIXES.get(kept, kept.value)
    name = f'attachment; filename="{exchange.id}.{suffix}"'
    return part, {"etag": etag, "content-disposition": name}


async def _stream(
    exchange: Exchange[Any, Any], part: Part, headers: dict[str, str], request: Open
) -> Response:
    if answer := exchange.not_modified(headers["etag"]):
        return answer
    await exchange.hold(exchange.state.shares.downloads)
    data, stream = await exchange.open(request(part.offset, part.length))
    if f'"{data.etag}"' != headers["etag"]:
        stream.close()
        raise MicaError(ErrorCode.CONFLICT, "It was changed during the request; retry.")
    return Response(
        status=part.status,
        media_type=_MEDIA_TYPE,
        headers=headers | part.headers,
        stream=parts_of(exchange, stream, part.length),
    )


async def parts_of(
    exchange: Exchange[Any, Any], stream: Stream, length: int
) -> AsyncGenerator[bytes, None]:
    """The content of a stream; BrokenStreamError if it ends early."""
    loop = asyncio.get_running_loop()
    gone = asyncio.create_task(exchange.gone())
    left = length
    try:
        while left:
            if gone.done():
                return
            try:
                async with asyncio.timeout(_STALL_S):
                    data = await loop.sock_recv(stream.socket, min(left, _PART_BYTES))
            except (OSError, TimeoutError) as error:
                raise BrokenStreamError(f"{left} bytes are missing ({error})") from error
            if not data:
                raise BrokenStreamError(f"{left} bytes are missing")
            left -= len(data)
            yield data
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        stream.close()


_DATA_HEADERS = {
    "ETag": "Changes with the data; for If-Range.",
    "Accept-Ranges": "`bytes`.",
    "Content-Disposition": "A file name to save it as.",
}
_RANGE_HEADERS = {
    "Range": "One range of bytes (RFC 9110 section 14); for several, the whole is returned.",
    "If-Range": "The range is returned only if this ETag is current.",
}
_REPLIES = (
    Reply(
        status=200,
        description="The whole file.",
        body=bytes,
        media_type=_MEDIA_TYPE,
        headers=_DATA_HEADERS,
    ),
    Reply(
        status=206,
        description="The requested range.",
        body=bytes,
        media_type=_MEDIA_TYPE,
        headers={**_DATA_HEADERS, "Content-Range": "The range that is returned."},
    ),
)
_HEAD_REPLIES = (
    Reply(
        status=200,
        description="What a download would be.",
        body=bytes,
        media_type=_MEDIA_TYPE,
        headers=_DATA_HEADERS,
    ),
)
_MAP_REPLIES = (Reply(status=200, description="A part of the map.", body=DataMap),)
_IMAGE_PROBLEMS = (
    ErrorCode.NOT_FOUND,
    ErrorCode.CONFLICT,
    HttpCode.RANGE_NOT_SATISFIABLE,
)
_VOLUME_PROBLEMS = (*_IMAGE_PROBLEMS, ErrorCode.IN_USE)

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/images/{id}/data",
        name="downloadImage",
        summary="An image's file, whole or a range",
        details="With `Range` and `If-Range`, an interrupted download continues where it ended.",
        handler=download_image,
        role=Role.OPERATOR,
        replies=_REPLIES,
        problems=_IMAGE_PROBLEMS,
        request_headers=_RANGE_HEADERS,
    ),
    Route(
        method="HEAD",
        path="/v1/images/{id}/data",
        name="headImage",
        summary="Size, ETag and digest of an image's file",
        details="As headers, without the data.",
        handler=head_image,
        role=Role.OPERATOR,
        replies=_HEAD_REPLIES,
        problems=_IMAGE_PROBLEMS,
    ),
    Route(
        method="GET",
        path="/v1/images/{id}/extents",
        name="getImageExtents",
        summary="The ranges of an image's file that hold data",
        handler=map_image,
        role=Role.OPERATOR,
        query=DataMapQuery,
        replies=_MAP_REPLIES,
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    ),
    Route(
        method="GET",
        path="/v1/volumes/{id}/extents",
        name="getVolumeExtents",
        summary="The ranges of a volume's file that hold data",
        handler=map_volume,
        role=Role.OPERATOR,
        query=DataMapQuery,
        replies=_MAP_REPLIES,
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.IN_USE),
    ),
    Route(
        method="GET",
        path="/v1/volumes/{id}/data",
        name="downloadVolume",
        summary="The file of a volume that no running VM uses, whole or a range",
        handler=download_volume,
        role=Role.OPERATOR,
        replies=_REPLIES,
        problems=_VOLUME_PROBLEMS,
        request_headers=_RANGE_HEADERS,
    ),
    Route(
        method="HEAD",
        path="/v1/volumes/{id}/data",
        name="headVolume",
        summary="Size, format and ETag of a volume's file",
        details="As headers, without the data.",
        handler=head_volume,
        role=Role.OPERATOR,
        replies=_HEAD_REPLIES,
        problems=_VOLUME_PROBLEMS,
    ),
)
