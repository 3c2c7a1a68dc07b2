"""Volumes."""

from __future__ import annotations

import msgspec

from remote_api.http.conditions import Matching, expected_revision
from remote_api.http.decode import decode_patch
from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.routing import AnyRoute, BodyKind, Condition, NoBody, Reply, Route
from remote_api.resources.operations import STARTED, accepted
from remote_api.schema import (
    ApiError,
    KeepVolumeBody,
    ListParameters,
    NoQuery,
    PageOf,
    SpecBody,
    VolumeCheckQuery,
    VolumePatchQuery,
    WaitQuery,
    list_parameters,
)
from vmkernel.control import requests
from vmkernel.model import (
    VOLUME_LISTING,
    ErrorCode,
    Role,
    Volume,
    VolumeSpec,
)

__all__ = ["ROUTES", "TAGS"]


async def list_volumes(exchange: Exchange[ListParameters, NoBody]) -> Response:
    return await answer_list(exchange, requests.ListVolumes)


async def get_volume(exchange: Exchange[NoQuery, NoBody]) -> Response:
    found = await exchange.call(requests.GetVolume(id=exchange.id))
    return json_response(found, version=found.revision)


async def create_volume(exchange: Exchange[WaitQuery, SpecBody[VolumeSpec]]) -> Response:
    operation = await exchange.call(requests.CreateVolume(id=exchange.id, spec=exchange.body.spec))
    return await accepted(exchange, operation, exchange.query.wait)


async def patch_volume(exchange: Exchange[VolumePatchQuery, SpecBody[VolumeSpec]]) -> Response:
    """Change a volume's size, or its place and form; its sources can't be changed."""
    volume = await exchange.call(requests.GetVolume(id=exchange.id))
    expected = exchange.precondition
    if isinstance(expected, Matching) and not expected.admits(str(volume.revision)):
        raise ApiError(
            ErrorCode.REVISION_MISMATCH,
            f"Volume {volume.id} is at revision {volume.revision}; read it and repeat the change.",
        )
    before = SpecBody(spec=volume.spec)
    wanted = decode_patch(exchange.raw_body, before, SpecBody[VolumeSpec]).spec
    for name in ("source_image", "source_volume"):
        if getattr(wanted, name) != getattr(before.spec, name):
            raise ApiError.field(f"/spec/{name}", "It is fixed at creation; make a new volume.")
    if wanted.delete_unless_used_s != before.spec.delete_unless_used_s:
        return await _keep_volume(exchange, before.spec, wanted)
    moves = [
        name
        for name in ("datastore", "format", "allocation")
        if getattr(wanted, name) != getattr(before.spec, name)
    ]
    if moves:
        if wanted.size_bytes != before.spec.size_bytes:
            raise ApiError.field(
                "/spec/size_bytes", f"Change the size and the {moves[0]} in separate requests."
            )
        operation = await exchange.call(
            requests.MoveVolume(
                id=exchange.id,
                datastore=wanted.datastore,
                format=wanted.format,
                allocation=wanted.allocation,
                revision=volume.revision,
            )
        )
        return await accepted(exchange, operation, exchange.query.wait)
    operation = await exchange.call(
        requests.ResizeVolume(
            id=exchange.id,
            size_bytes=wanted.size_bytes,
            revision=volume.revision,
            allow_shrink=exchange.query.allow_shrink,
        )
    )
    return await accepted(exchange, operation, exchange.query.wait)


async def _keep_volume(
    exchange: Exchange[VolumePatchQuery, SpecBody[VolumeSpec]],
    before: VolumeSpec,
    wanted: VolumeSpec,
) -> Response:
    pointer = "/spec/delete_unless_used_s"
    if wanted.delete_unless_used_s is not None:
        raise ApiError.field(pointer, "It is fixed at creation; null keeps the volume.")
    if wanted != msgspec.structs.replace(before, delete_unless_used_s=None):
        raise ApiError.field(pointer, "Change it in a request of its own.")
    operation = await exchange.call(requests.KeepVolume(id=exchange.id))
    return await accepted(exchange, operation, exchange.query.wait)


async def keep_volume(exchange: Exchange[WaitQuery, KeepVolumeBody]) -> Response:
    """Let a volume stay, and others with it."""
    request = requests.KeepVolume(id=exchange.id, together_with=exchange.body.together_with)
    return await accepted(exchange, await exchange.call(request), exchange.query.wait)


async def flatten_volume(exchange: Exchange[WaitQuery, NoBody]) -> Response:
    """Make a linked volume whole."""
    operation = await exchange.call(requests.FlattenVolume(id=exchange.id))
    return await accepted(exchange, operation, exchange.query.wait)


async def check_volume(exchange: Exchange[VolumeCheckQuery, NoBody]) -> Response:
    operation = await exchange.call(
        requests.CheckVolume(id=exchange.id, repair=exchange.query.repair)
    )
    return await accepted(exchange, operation, exchange.query.wait)


async def delete_volume(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Delete a volume that no VM names."""

    async def current() -> int:
        return (await exchange.call(requests.GetVolume(id=exchange.id))).revision

    revision = await expected_revision(exchange.precondition, current)
    await exchange.call(requests.DeleteVolume(id=exchange.id, revision=revision))
    return Response(status=204)


TAGS = {"volumes": "Virtual disks."}
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/volumes",
        name="listVolumes",
        summary="All volumes, of one datastore or of all, ordered by id",
        handler=list_volumes,
        query=list_parameters(VOLUME_LISTING),
        replies=(Reply(status=200, description="A page of volumes.", body=PageOf[Volume]),),
    ),
    Route(
        method="GET",
        path="/v1/volumes/{id}",
        name="getVolume",
        summary="One volume",
        details="Its size and format, the space that it takes, and which virtual machine uses it.",
        handler=get_volume,
        replies=(Reply(status=200, description="The volume.", body=Volume, etag=True),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        method="PUT",
        path="/v1/volumes/{id}",
        name="createVolume",
        summary="Create a volume: blank, from an image, or as a copy of another",
        handler=create_volume,
        role=Role.OPERATOR,
        query=WaitQuery,
        body=SpecBody[VolumeSpec],
        body_kind=BodyKind.JSON,
        examples={
            "blank": {"spec": {"datastore": "main", "size_bytes": 21474836480}},
            "from an image": {
                "spec": {
                    "datastore": "main",
                    "size_bytes": 21474836480,
                    "source_image": "debian-13",
                }
            },
        },
        condition=Condition.CREATE,
        replies=STARTED,
        problems=(
            ErrorCode.NOT_FOUND,
            ErrorCode.ALREADY_EXISTS,
            ErrorCode.CONFLICT,
            ErrorCode.IN_USE,
            ErrorCode.INSUFFICIENT_SPACE,
            ErrorCode.UNSUPPORTED,
        ),
    ),
    Route(
        method="PATCH",
        path="/v1/volumes/{id}",
        name="patchVolume",
        summary="Resize, convert or move a volume by a merge patch (RFC 7396)",
        handler=patch_volume,
        role=Role.OPERATOR,
        query=VolumePatchQuery,
        body=SpecBody[VolumeSpec],
        body_kind=BodyKind.MERGE_PATCH,
        examples={"larger": {"spec": {"size_bytes": 42949672960}}},
        condition=Condition.MATCH,
        replies=STARTED,
        problems=(
            ErrorCode.NOT_FOUND,
            ErrorCode.CONFLICT,
            ErrorCode.IN_USE,
            ErrorCode.INSUFFICIENT_SPACE,
            ErrorCode.REVISION_MISMATCH,
            ErrorCode.UNSUPPORTED,
        ),
    ),
    Route(
        method="POST",
        path="/v1/volumes/{id}/keep",
        name="keepVolume",
        summary="Keep volumes that were made with `delete_unless_used_s`: all of them or none",
        handler=keep_volume,
        role=Role.OPERATOR,
        query=WaitQuery,
        body=KeepVolumeBody,
        body_kind=BodyKind.JSON,
        examples={"a VM's disks": {"together_with": ["web-disk1", "web-disk2"]}},
        replies=STARTED,
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    ),
    Route(
        method="POST",
        path="/v1/volumes/{id}/flatten",
        name="flattenVolume",
        summary="Flatten a linked volume, also while its virtual machine runs",
        handler=flatten_volume,
        role=Role.OPERATOR,
        query=WaitQuery,
        replies=STARTED,
        problems=(
            ErrorCode.NOT_FOUND,
            ErrorCode.CONFLICT,
            ErrorCode.IN_USE,
            ErrorCode.INSUFFICIENT_SPACE,
        ),
    ),
    Route(
        method="POST",
        path="/v1/volumes/{id}/check",
        name="checkVolume",
        summary="Check a volume's file; the result is in the volume's status",
        handler=check_volume,
        role=Role.OPERATOR,
        query=VolumeCheckQuery,
        replies=STARTED,
        problems=(
            ErrorCode.NOT_FOUND,
            ErrorCode.CONFLICT,
            ErrorCode.IN_USE,
            ErrorCode.UNSUPPORTED,
        ),
    ),
    Route(
        method="DELETE",
        path="/v1/volumes/{id}",
        name="deleteVolume",
        summary="Delete a volume that no virtual machine names",
        handler=delete_volume,
        role=Role.OPERATOR,
        condition=Condition.MATCH,
        replies=(Reply(status=204, description="It is gone."),),
        problems=(
            ErrorCode.NOT_FOUND,
            ErrorCode.CONFLICT,
            ErrorCode.IN_USE,
            ErrorCode.REVISION_MISMATCH,
        ),
    ),
)
