"""New images: a one-shot PUT whose body flows to the vmkernel as it comes; pulls and captures.

asked -> refused                        size, name, digest form, free space: before a byte is read
      -> flowing -> proven              201, or 202 where proving takes longer than `wait`
                 -> failed              the operation's problem
                 -> client gone         the stream is closed short; the vmkernel leaves nothing
At most one part of the body (64 KiB) is held here; the vmkernel's pace is the client's pace.
"""

from __future__ import annotations

import asyncio
import socket

from msgspec import UNSET

from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.routing import AnyRoute, BodyKind, Condition, NoBody, Reply, Route
from remote_api.resources.images import image_response
from remote_api.resources.operations import STARTED, accepted, raise_failed, settled
from remote_api.schema import ApiError, CaptureBody, HttpCode, PullBody, UploadQuery, WaitQuery
from vmkernel.control import Stream, requests
from vmkernel.model import ErrorCode, Image, ImageSource, Operation, OperationState, Role

__all__ = ["ROUTES"]

_STALL_S = 120.0
_VERDICT_S = 30.0


async def upload_image(exchange: Exchange[UploadQuery, NoBody]) -> Response:
    size = exchange.content_length
    if size is None:
        raise ApiError(
            HttpCode.LENGTH_REQUIRED, "Send the image's size in a Content-Length header."
        )
    query = exchange.query
    if not 1 <= size <= 1 << 50:
        raise ApiError.field("Content-Length", "An image has 1 byte to 1 PiB.")
    await exchange.hold(exchange.state.shares.uploads)
    operation, stream = await exchange.open(
        requests.UploadImage(
            id=exchange.id,
            spec=ImageSource(
                datastore=query.datastore,
                size_bytes=size,
                sha256=query.sha256,
                format=None if query.format is UNSET else query.format,
                compression=None if query.compression is UNSET else query.compression,
            ),
        )
    )
    try:
        whole = await _pump(exchange, stream)
    finally:
        stream.close()
    # Where the vmkernel stopped taking data it has its reason, and the operation tells it.
    wait_s = query.wait if whole else _VERDICT_S
    operation = await settled(exchange, operation, wait_s)
    raise_failed(operation)
    if operation.state is OperationState.SUCCEEDED:
        image = await exchange.call(requests.GetImage(id=exchange.id))
        return image_response(image, status=201, location=exchange.path)
    return json_response(operation, status=202, location=f"/v1/operations/{operation.id}")


async def _pump(exchange: Exchange[UploadQuery, NoBody], stream: Stream) -> bool:
    """Pass the body on; False if the vmkernel stopped taking it."""
    loop = asyncio.get_running_loop()
    async for part in exchange.body_parts():
        try:
            async with asyncio.timeout(_STALL_S):
                await loop.sock_sendall(stream.socket, part)
        except (BrokenPipeError, ConnectionResetError):
            return False
        except TimeoutError as error:
            raise ApiError(
                ErrorCode.TIMED_OUT,
                f"The datastore accepted no data for {_STALL_S:g} s; nothing was kept.",
            ) from error
    try:
        stream.socket.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


async def pull_image(exchange: Exchange[WaitQuery, PullBody]) -> Response:
    """Let the host fetch a new image."""
    operation = await exchange.call(requests.PullImage(id=exchange.id, spec=exchange.body.spec))
    return await accepted(exchange, operation, exchange.query.wait)


async def capture_image(exchange: Exchange[WaitQuery, CaptureBody]) -> Response:
    """Make a new image of a volume."""
    operation = await exchange.call(requests.CaptureImage(id=exchange.id, spec=exchange.body.spec))
    return await accepted(exchange, operation, exchange.query.wait)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="PUT",
        path="/v1/images/{id}",
        name="uploadImage",
        summary="Upload a new image in one request, with its size and SHA-256",
        handler=upload_image,
        role=Role.OPERATOR,
        query=UploadQuery,
        pointers={"/spec/size_bytes": "Content-Length"},
        body_kind=BodyKind.STREAM,
        condition=Condition.CREATE,
        replies=(
            Reply(status=201, description="It is durable.", body=Image, etag=True, location=True),
            Reply(
                status=202,
                description="The image is being verified.",
                body=Operation,
                location=True,
            ),
        ),
        problems=(
            ErrorCode.NOT_FOUND,
            ErrorCode.ALREADY_EXISTS,
            ErrorCode.CONFLICT,
            ErrorCode.INSUFFICIENT_SPACE,
            ErrorCode.DIGEST_MISMATCH,
            ErrorCode.TRUNCATED,
            HttpCode.LENGTH_REQUIRED,
            ErrorCode.UNSUPPORTED,
        ),
    ),
    Route(
        method="POST",
        path="/v1/images/{id}/pull",
        name="pullImage",
        summary="Let the host fetch a new image from an HTTP or HTTPS server",
        handler=pull_image,
        role=Role.OPERATOR,
        query=WaitQuery,
        body=PullBody,
        body_kind=BodyKind.JSON,
        examples={
            "a disk image": {
                "spec": {
                    "datastore": "main",
                    "url": "https://images.example/debian-13.qcow2",
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                }
            }
        },
        replies=STARTED,
        problems=(
            ErrorCode.ALREADY_EXISTS,
            ErrorCode.CONFLICT,
            ErrorCode.UNSUPPORTED,
        ),
    ),
    Route(
        method="POST",
        path="/v1/images/{id}/capture",
        name="captureImage",
        summary="Make a new image of a volume that no running VM uses",
        handler=capture_image,
        role=Role.OPERATOR,
        query=WaitQuery,
        body=CaptureBody,
        body_kind=BodyKind.JSON,
        examples={"a template": {"spec": {"volume": "web-1", "format": "qcow2", "compress": True}}},
        replies=STARTED,
        problems=(
            ErrorCode.ALREADY_EXISTS,
            ErrorCode.CONFLICT,
            ErrorCode.IN_USE,
            ErrorCode.UNSUPPORTED,
        ),
    ),
)
