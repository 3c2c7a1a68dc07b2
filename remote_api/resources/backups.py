"""Backups of VMs: begun, read as extents and bytes, ended; checkpoints; and data written
into volumes, as a restore does."""

from __future__ import annotations

import asyncio
import re
import socket

import msgspec

from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.ranges import wanted_part
from remote_api.http.routing import AnyRoute, BodyKind, NoBody, Reply, Route
from remote_api.resources.downloads import parts_of
from remote_api.schema import (
    ApiError,
    BackupBody,
    ExtentsQuery,
    HttpCode,
    ListParameters,
    NoQuery,
    list_parameters,
)
from vmkernel.control import Stream, requests
from vmkernel.model import (
    BACKUP_LISTING,
    CHECKPOINT_LISTING,
    Backup,
    BackupExtents,
    BackupList,
    CheckpointList,
    ErrorCode,
    ErrorInfo,
    MicaError,
    Role,
    SavedVm,
)

__all__ = ["ROUTES"]

_STALL_S = 120.0
_VERDICT_BYTES = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\Z")


async def begin_backup(exchange: Exchange[NoQuery, BackupBody]) -> Response:
    """Keep the disks of a VM readable as they are now."""
    body = exchange.body
    backup = await exchange.call(
        requests.BeginBackup(
            id=exchange.id,
            disks=body.disks,
            checkpoint=body.checkpoint,
            since=body.since,
            time_limit_s=body.time_limit_s,
        ),
        timeout_s=180.0,
    )
    return json_response(backup, status=201, location=f"{exchange.path}/{backup.id}")


async def list_backups(exchange: Exchange[ListParameters, NoBody]) -> Response:
    return await answer_list(exchange, requests.ListBackups, id=exchange.id)


async def get_backup(exchange: Exchange[NoQuery, NoBody]) -> Response:
    found = await exchange.call(
        requests.GetBackup(id=exchange.id, backup=exchange.parameters["backup"])
    )
    return json_response(found)


async def get_backup_vm(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """The VM of a backup, as the body that creates it again."""
    saved = await exchange.call(
        requests.GetBackupVm(id=exchange.id, backup=exchange.parameters["backup"])
    )
    return json_response(saved)


async def end_backup(exchange: Exchange[NoQuery, NoBody]) -> Response:
    await exchange.call(requests.EndBackup(id=exchange.id, backup=exchange.parameters["backup"]))
    return Response(status=204)


async def list_extents(exchange: Exchange[ExtentsQuery, NoBody]) -> Response:
    """What to copy of a disk."""
    found = await exchange.call(
        requests.ListExtents(
            id=exchange.id,
            backup=exchange.parameters["backup"],
            disk=exchange.parameters["disk"],
            offset=exchange.query.offset,
        )
    )
    return json_response(found)


async def read_disk(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """The data of a backup's disk, whole or a range."""
    name, key = exchange.parameters["backup"], exchange.parameters["disk"]
    backup = await exchange.call(requests.GetBackup(id=exchange.id, backup=name))
    size = next((disk.size_bytes for disk in backup.disks if disk.key == key), None)
    if size is None:
        raise ApiError(ErrorCode.NOT_FOUND, f"Backup {name} has no disk {key}.")
    part = wanted_part(size, f'"{name}"', exchange.header("Range"), exchange.header("If-Range"))
    if answer := exchange.not_modified(f'"{name}"'):
        return answer
    await exchange.hold(exchange.state.shares.downloads)
    _, stream = await exchange.open(
        requests.ReadBackup(
            id=exchange.id, backup=name, disk=key, offset=part.offset, length=part.length
        )
    )
    return Response(
        status=part.status,
        media_type="application/octet-stream",
        headers={"etag": f'"{name}"', **part.headers},
        stream=parts_of(exchange, stream, part.length),
    )


async def list_checkpoints(exchange: Exchange[ListParameters, NoBody]) -> Response:
    return await answer_list(exchange, requests.ListCheckpoints, id=exchange.id)


async def delete_checkpoint(exchange: Exchange[NoQuery, NoBody]) -> Response:
    await exchange.call(
        requests.DeleteCheckpoint(id=exchange.id, checkpoint=exchange.parameters["checkpoint"])
    )
    return Response(status=204)


async def write_volume(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Write a part of a raw volume."""
    length = exchange.content_length
    if length is None:
        raise ApiError(HttpCode.LENGTH_REQUIRED, "Send a Content-Length header.")
    match = _CONTENT_RANGE.match(exchange.header("Content-Range") or "")
    if match is None or int(match[2]) - int(match[1]) + 1 != length:
        raise ApiError.field(
            "Content-Range", "Use `bytes FIRST-LAST/SIZE`, with the length of the body."
        )
    await exchange.hold(exchange.state.shares.uploads)
    _, stream = await exchange.open(
        requests.WriteVolume(id=exchange.id, offset=int(match[1]), length=length)
    )
    try:
        verdict = await _pump(exchange, stream)
    finally:
        stream.close()
    if verdict:
        raise MicaError.from_problem(msgspec.json.decode(verdict, type=ErrorInfo))
    return Response(status=204)


async def _pump(exchange: Exchange[NoQuery, NoBody], stream: Stream) -> bytes:
    """Pass the body on, and wait for the vmkernel's verdict."""
    loop = asyncio.get_running_loop()
    try:
        async for part in exchange.body_parts():
            try:
                async with asyncio.timeout(_STALL_S):
                    await loop.sock_sendall(stream.socket, part)
            except (BrokenPipeError, ConnectionResetError):
                break
        stream.socket.shutdown(socket.SHUT_WR)
        verdict = b""
        async with asyncio.timeout(_STALL_S):
            while data := await loop.sock_recv(stream.socket, _VERDICT_BYTES):
                verdict += data
    except (OSError, TimeoutError) as error:
        raise ApiError(
            ErrorCode.UNAVAILABLE, f"The data were not written ({error}); send them again."
        ) from error
    return verdict


_BACKUP = "/v1/vms/{id}/backups/{backup}"
_PROBLEMS = (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT)
_DATA_HEADERS = {"ETag": "The backup's id.", "Accept-Ranges": "`bytes`."}

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/v1/vms/{id}/backups",
        name="beginBackup",
        dry_run=False,
        summary="Begin a backup: keep the disks of a virtual machine readable as they are now",
        handler=begin_backup,
        role=Role.OPERATOR,
        body=BackupBody,
        body_kind=BodyKind.JSON,
        examples={"all disks, and record changes from now on": {"checkpoint": "monday"}},
        replies=(
            Reply(status=201, description="The backup has begun.", body=Backup, location=True),
        ),
        problems=(*_PROBLEMS, ErrorCode.INSUFFICIENT_SPACE),
    ),
    Route(
        method="GET",
        path="/v1/vms/{id}/backups",
        name="listBackups",
        summary="The open backups of a virtual machine",
        details="Each keeps its disks readable until it is ended or expires.",
        handler=list_backups,
        query=list_parameters(BACKUP_LISTING),
        replies=(Reply(status=200, description="The backups.", body=BackupList),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        method="GET",
        path=_BACKUP,
        name="getBackup",
        summary="An open backup",
        details="Its disks with their sizes, and when it expires.",
        handler=get_backup,
        replies=(Reply(status=200, description="The backup.", body=Backup),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        method="GET",
        path=f"{_BACKUP}/vm",
        name="getBackupVm",
        summary="The virtual machine of a backup, as the body that creates it again",
        handler=get_backup_vm,
        role=Role.OPERATOR,
        holds_secrets=True,
        replies=(
            Reply(
                status=200,
                description="Spec, machine type, UUID, firmware variables and TPM state.",
                body=SavedVm,
            ),
        ),
        problems=_PROBLEMS,
    ),
    Route(
        method="DELETE",
        path=_BACKUP,
        name="endBackup",
        dry_run=False,
        summary="End a backup; its checkpoint stays",
        details="The disks are no longer kept as they were.",
        handler=end_backup,
        role=Role.OPERATOR,
        replies=(Reply(status=204, description="The backup has ended."),),
        problems=_PROBLEMS,
    ),
    Route(
        method="GET",
        path=f"{_BACKUP}/disks/{{disk}}/extents",
        name="listBackupExtents",
        summary="The ranges of a backup's disk that are to be copied",
        details="Byte ranges with data or, with `since`, those that have changed.",
        handler=list_extents,
        role=Role.OPERATOR,
        query=ExtentsQuery,
        replies=(Reply(status=200, description="A part of the list.", body=BackupExtents),),
        problems=_PROBLEMS,
    ),
    Route(
        method="GET",
        path=f"{_BACKUP}/disks/{{disk}}/data",
        name="readBackupDisk",
        summary="The data of a backup's disk, whole or a range",
        details="The bytes are as they were when the backup began.",
        handler=read_disk,
        role=Role.OPERATOR,
        replies=(
            Reply(
                status=200,
                description="The whole disk.",
                body=bytes,
                media_type="application/octet-stream",
                headers=_DATA_HEADERS,
            ),
            Reply(
                status=206,
                description="The requested range.",
                body=bytes,
                media_type="application/octet-stream",
                headers={**_DATA_HEADERS, "Content-Range": "The range that is returned."},
            ),
        ),
        problems=(*_PROBLEMS, HttpCode.RANGE_NOT_SATISFIABLE),
        request_headers={
            "Range": "One range of bytes (RFC 9110 section 14).",
            "If-Range": "The range is returned only if this ETag is current.",
        },
    ),
    Route(
        method="GET",
        path="/v1/vms/{id}/checkpoints",
        name="listCheckpoints",
        summary="The checkpoints of a virtual machine",
        handler=list_checkpoints,
        query=list_parameters(CHECKPOINT_LISTING),
        replies=(Reply(status=200, description="The checkpoints.", body=CheckpointList),),
        problems=_PROBLEMS,
    ),
    Route(
        method="DELETE",
        path="/v1/vms/{id}/checkpoints/{checkpoint}",
        name="deleteCheckpoint",
        dry_run=False,
        summary="Delete a checkpoint of a virtual machine",
        details="Changes since then are no longer recorded.",
        handler=delete_checkpoint,
        role=Role.OPERATOR,
        replies=(Reply(status=204, description="The checkpoint is deleted."),),
        problems=_PROBLEMS,
    ),
    Route(
        method="PATCH",
        path="/v1/volumes/{id}/data",
        name="writeVolume",
        pointers={"/offset": "Content-Range", "/length": "Content-Length"},
        summary="Write a range of a raw volume that no running virtual machine uses",
        handler=write_volume,
        role=Role.OPERATOR,
        body_kind=BodyKind.STREAM,
        replies=(Reply(status=204, description="The data are durable."),),
        problems=(
            *_PROBLEMS,
            ErrorCode.IN_USE,
            ErrorCode.TRUNCATED,
            HttpCode.LENGTH_REQUIRED,
            ErrorCode.INSUFFICIENT_SPACE,
        ),
        request_headers={"Content-Range": "`bytes FIRST-LAST/SIZE`: where the body belongs."},
    ),
)
