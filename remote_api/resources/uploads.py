"""Resumable uploads over tus 1.0: created, sent in parts, resumed after any interruption.

POST /v1/uploads            Upload-Length, Upload-Metadata [first part]      201, Location
HEAD /v1/uploads/{id}       what is durable                                  200, Upload-Offset
PATCH /v1/uploads/{id}      Upload-Offset, a part [Upload-Checksum]          204, Upload-Offset
DELETE /v1/uploads/{id}     give it up                                       204
The part that makes it whole is answered once the image is there, or after IMPORT_WAIT_S with the
operation's id in Mica-Operation. State is the vmkernel's: this process may die at any time.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec

from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.problems import api_error
from remote_api.http.routing import AnyRoute, BodyKind, NoBody, Reply, Route
from remote_api.http.tus import (
    ALGORITHMS,
    EXTENSIONS,
    TUS_HEADERS,
    checksum_of,
    count_of,
    expires_header,
    require_version,
    spec_of,
)
from remote_api.resources.operations import raise_failed, settled
from remote_api.schema import (
    ApiError,
    HttpCode,
    ListParameters,
    NoQuery,
    PageOf,
    list_parameters,
)
from vmkernel.control import Stream, requests
from vmkernel.model import (
    UPLOAD_LISTING,
    ErrorCode,
    Role,
    Upload,
    UploadChecksum,
    UploadOutcome,
)
from vmkernel.model.images import MAX_IMAGE_BYTES

__all__ = ["ROUTES", "TAGS"]

_STALL_S = 120.0
_OUTCOME_S = 180.0
_OUTCOME_BYTES = 1 << 16
IMPORT_WAIT_S = 25.0


async def tell_abilities(_: Exchange[NoQuery, NoBody]) -> Response:
    """The supported version and extensions of tus."""
    return Response(
        status=204,
        headers={
            "tus-version": TUS_HEADERS["tus-resumable"],
            "tus-extension": EXTENSIONS,
            "tus-max-size": str(MAX_IMAGE_BYTES),
            "tus-checksum-algorithm": ",".join(ALGORITHMS),
        },
    )


async def list_uploads(exchange: Exchange[ListParameters, NoBody]) -> Response:
    return await answer_list(exchange, requests.ListUploads)


async def get_upload(exchange: Exchange[NoQuery, NoBody]) -> Response:
    found = await exchange.call(requests.GetUpload(id=exchange.id))
    return json_response(found)


async def create_upload(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Begin an upload, with its first part if the request has one."""
    require_version(exchange)
    wanted = spec_of(exchange)
    checksum = checksum_of(exchange) if exchange.announced_body else None
    upload = await exchange.call(requests.CreateUpload(spec=wanted))
    # Relative: behind a proxy that changes `Host`, an absolute one would lead past it.
    headers = {"location": f"/v1/uploads/{upload.id}", **expires_header(upload)}
    if exchange.announced_body:
        headers |= await _take_part(exchange, upload.id, 0, checksum)
    return Response(status=201, headers=headers)


async def head_upload(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """How far an upload is."""
    require_version(exchange)
    upload = await exchange.call(requests.GetUpload(id=exchange.id))
    return Response(
        status=200,
        headers={
            "upload-offset": str(upload.status.offset_bytes),
            "upload-length": str(upload.spec.size_bytes),
            **expires_header(upload),
        },
    )


async def send_part(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Take a part of an upload."""
    require_version(exchange)
    offset = count_of(exchange, "Upload-Offset")
    headers = await _take_part(exchange, exchange.id, offset, checksum_of(exchange))
    return Response(status=204, headers=headers)


async def delete_upload(exchange: Exchange[NoQuery, NoBody]) -> Response:
    require_version(exchange)
    await exchange.call(requests.DeleteUpload(id=exchange.id))
    return Response(status=204)


async def override_method(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """For clients that can send only GET and POST."""
    require_version(exchange)
    method = exchange.header("X-HTTP-Method-Override")
    if method == "PATCH" and exchange.announced_body:
        return await send_part(exchange)
    if method == "DELETE":
        return await delete_upload(exchange)
    if method == "HEAD":
        return await head_upload(exchange)
    raise ApiError.field(
        "X-HTTP-Method-Override", "A POST here is a PATCH (with a body), a DELETE or a HEAD."
    )


async def _take_part(
    exchange: Exchange[Any, Any],
    upload_id: str,
    offset: int,
    checksum: UploadChecksum | None,
) -> dict[str, str]:
    """Pass the body on; returns the headers that report the result. Raises ApiError."""
    await exchange.hold(exchange.state.shares.uploads)
    upload, stream = await exchange.open(
        requests.WriteUpload(
            id=upload_id, offset=offset, length=exchange.content_length, checksum=checksum
        )
    )
    try:
        await _pump(exchange, stream)
        outcome = await _outcome(stream)
    finally:
        stream.close()
    if outcome.problem is not None:
        raise api_error(outcome.problem)
    if not outcome.checksum_matches:
        raise ApiError(
            HttpCode.CHECKSUM_MISMATCH,
            f"The part was dropped; send it again from {outcome.offset_bytes} on.",
            headers={"upload-offset": str(outcome.offset_bytes)},
        )
    headers = {"upload-offset": str(outcome.offset_bytes), **expires_header(upload)}
    if outcome.operation is not None:
        now = await exchange.call(requests.GetOperation(id=outcome.operation))
        now = await settled(exchange, now, IMPORT_WAIT_S)
        raise_failed(now)
        headers["mica-operation"] = outcome.operation
    return headers


async def _pump(exchange: Exchange[Any, Any], stream: Stream) -> None:
    """Pass the body on, until it ends or the vmkernel refuses more and says why."""
    loop = asyncio.get_running_loop()
    try:
        async for part in exchange.body_parts():
            async with asyncio.timeout(_STALL_S):
                await loop.sock_sendall(stream.socket, part)
        stream.socket.shutdown(socket.SHUT_WR)
    except TimeoutError as error:
        raise ApiError(
            ErrorCode.TIMED_OUT,
            f"The datastore accepted no data for {_STALL_S:g} s; ask for the offset and continue"
            " there.",
        ) from error
    except OSError:
        return


async def _outcome(stream: Stream) -> UploadOutcome:
    loop = asyncio.get_running_loop()
    data = b""
    try:
        async with asyncio.timeout(_OUTCOME_S):
            while len(data) <= _OUTCOME_BYTES and (
                part := await loop.sock_recv(stream.socket, _OUTCOME_BYTES)
            ):
                data += part
        return msgspec.json.decode(data, type=UploadOutcome)
    except (OSError, TimeoutError, msgspec.DecodeError) as error:
        raise ApiError(
            ErrorCode.UNAVAILABLE,
            "Another request took the upload over, or the hypervisor restarts; ask for the offset"
            " and continue there.",
            retry_after_s=1,
        ) from error


_VERSION = {"Tus-Resumable": "`1.0.0`."}
_SUM = {"Upload-Checksum": "`sha1`, `sha256` or `sha512`, a space, the body's digest in Base64."}
_OFFSET = {"Upload-Offset": "The number of bytes that are stored durably."}
_EXPIRES = {"Upload-Expires": "When the upload expires if no data arrive."}
_POINTERS = {
    **{f"/spec/{name}": "Upload-Metadata" for name in ("image", "datastore", "sha256", "format")},
    "/spec/compression": "Upload-Metadata",
    "/spec/size_bytes": "Upload-Length",
    "/offset": "Upload-Offset",
}
_PROBLEMS = (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, HttpCode.PROTOCOL_VERSION)
_PART_PROBLEMS = (
    *_PROBLEMS,
    ErrorCode.ALREADY_EXISTS,
    ErrorCode.INSUFFICIENT_SPACE,
    ErrorCode.DIGEST_MISMATCH,
    HttpCode.CHECKSUM_MISMATCH,
    ErrorCode.TRUNCATED,
    HttpCode.LENGTH_REQUIRED,
    ErrorCode.UNSUPPORTED,
)

TAGS = {"uploads": "Resumable uploads of images, by tus 1.0 (https://tus.io)."}
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="OPTIONS",
        path="/v1/uploads",
        name="uploadAbilities",
        summary="The version of tus that is supported",
        details="Version, extensions, largest upload and checksums, as headers.",
        handler=tell_abilities,
        role=None,
        replies=(
            Reply(
                status=204,
                description="See the headers.",
                headers={
                    "Tus-Version": "Versions of the protocol.",
                    "Tus-Extension": "Its extensions.",
                    "Tus-Max-Size": "The most bytes of an upload.",
                    "Tus-Checksum-Algorithm": "For Upload-Checksum.",
                },
            ),
        ),
        response_headers=TUS_HEADERS,
    ),
    Route(
        method="GET",
        path="/v1/uploads",
        name="listUploads",
        summary="Resumable uploads in progress, ordered by id",
        handler=list_uploads,
        role=Role.OPERATOR,
        query=list_parameters(UPLOAD_LISTING),
        replies=(Reply(status=200, description="A page of uploads.", body=PageOf[Upload]),),
    ),
    Route(
        method="POST",
        path="/v1/uploads",
        name="createUpload",
        summary="Begin a resumable upload of an image (tus 1.0)",
        details="Send its parts to `Location`; this request can include the first one.",
        handler=create_upload,
        role=Role.OPERATOR,
        body_kind=BodyKind.TUS,
        body_optional=True,
        replies=(
            Reply(
                status=201, description="The upload exists now.", location=True, headers=_EXPIRES
            ),
        ),
        problems=_PART_PROBLEMS,
        pointers=_POINTERS,
        request_headers={
            **_VERSION,
            **_SUM,
            "Upload-Length": "The total number of bytes.",
            "Upload-Metadata": (
                "Keys with values in Base64: `image`, `datastore`; optional `sha256` (of all "
                "data), `format`, `compression`."
            ),
        },
        response_headers=TUS_HEADERS,
    ),
    Route(
        method="GET",
        path="/v1/uploads/{id}",
        name="getUpload",
        summary="One resumable upload",
        details="Its progress, and the operation that makes the image from it.",
        handler=get_upload,
        role=Role.OPERATOR,
        replies=(Reply(status=200, description="The upload.", body=Upload),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        method="HEAD",
        path="/v1/uploads/{id}",
        name="headUpload",
        summary="The offset of a resumable upload",
        details="In the header `Upload-Offset`; the client continues there.",
        handler=head_upload,
        role=Role.OPERATOR,
        replies=(
            Reply(
                status=200,
                description="See the headers.",
                headers={**_OFFSET, **_EXPIRES, "Upload-Length": "The total number of bytes."},
            ),
        ),
        problems=_PROBLEMS,
        request_headers=_VERSION,
        response_headers=TUS_HEADERS,
    ),
    Route(
        method="PATCH",
        path="/v1/uploads/{id}",
        name="sendUploadPart",
        summary="Send a part of a resumable upload; with the last one the image is made",
        handler=send_part,
        role=Role.OPERATOR,
        body_kind=BodyKind.TUS,
        body_optional=True,
        replies=(
            Reply(
                status=204,
                description="The part is durable.",
                headers={**_OFFSET, **_EXPIRES},
            ),
        ),
        problems=_PART_PROBLEMS,
        pointers=_POINTERS,
        request_headers={**_VERSION, **_SUM, "Upload-Offset": "The offset of the part."},
        response_headers=TUS_HEADERS,
    ),
    Route(
        method="DELETE",
        path="/v1/uploads/{id}",
        name="deleteUpload",
        dry_run=False,
        summary="Cancel a resumable upload",
        details="The received data are deleted; the name of its image is free again.",
        handler=delete_upload,
        role=Role.OPERATOR,
        replies=(Reply(status=204, description="It is gone."),),
        problems=_PROBLEMS,
        request_headers=_VERSION,
        response_headers=TUS_HEADERS,
    ),
    Route(
        method="POST",
        path="/v1/uploads/{id}",
        name="overrideUploadMethod",
        summary="PATCH, HEAD or DELETE for clients that can only POST",
        handler=override_method,
        role=Role.OPERATOR,
        body_kind=BodyKind.TUS,
        body_optional=True,
        replies=(
            Reply(status=200, description="As HEAD."),
            Reply(status=204, description="As PATCH or DELETE."),
        ),
        problems=_PART_PROBLEMS,
        pointers=_POINTERS,
        request_headers={
            **_VERSION,
            **_SUM,
            "X-HTTP-Method-Override": "The intended method.",
            "Upload-Offset": "The offset of the part.",
        },
        response_headers=TUS_HEADERS,
    ),
)
