"""Datastores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remote_api.http.conditions import Matching
from remote_api.http.decode import decode_patch
from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.routing import AnyRoute, BodyKind, Condition, NoBody, Reply, Route
from remote_api.resources.operations import STARTED, accepted
from remote_api.schema import (
    AddDiskBody,
    ApiError,
    DatastoreBody,
    ListParameters,
    MountQuery,
    NoQuery,
    PageOf,
    ProblemCode,
    RenameDatastoreBody,
    ReplaceDiskBody,
    WaitQuery,
    list_parameters,
)
from vmkernel.control import requests
from vmkernel.model import (
    DATASTORE_LISTING,
    Datastore,
    ErrorCode,
    Role,
)

__all__ = ["ROUTES", "TAGS"]


async def list_datastores(exchange: Exchange[ListParameters, NoBody]) -> Response:
    return await answer_list(exchange, requests.ListDatastores)


async def get_datastore(exchange: Exchange[NoQuery, NoBody]) -> Response:
    found = await exchange.call(requests.GetDatastore(id=exchange.id))
    return json_response(found, version=found.revision)


async def create_datastore(exchange: Exchange[WaitQuery, DatastoreBody]) -> Response:
    """Make a datastore, or take over the one that a disk holds."""
    operation = await exchange.call(
        requests.CreateDatastore(
            id=exchange.id,
            spec=exchange.body.spec,
            wipe_serials=exchange.body.wipe_serials,
            adopt=exchange.body.adopt,
            take_over=exchange.body.take_over,
        )
    )
    return await accepted(exchange, operation, exchange.query.wait)


async def patch_datastore(exchange: Exchange[NoQuery, DatastoreBody]) -> Response:
    """Change the thresholds; everything else is fixed or has its own call."""
    found = await exchange.call(requests.GetDatastore(id=exchange.id))
    expected = exchange.precondition
    if isinstance(expected, Matching) and not expected.admits(str(found.revision)):
        raise ApiError(
            ErrorCode.REVISION_MISMATCH,
            f"Datastore {found.id} is at revision {found.revision}; read it and repeat the change.",
        )
    before = DatastoreBody(spec=found.spec)
    wanted = decode_patch(exchange.raw_body, before, DatastoreBody)
    for name in ("wipe_serials", "adopt", "take_over"):
        if getattr(wanted, name) != getattr(before, name):
            raise ApiError.field(f"/{name}", "It is only valid when a datastore is created.")
    for name in before.spec.__struct_fields__:
        changeable = name in ("warning_percent", "critical_percent")
        if not changeable and getattr(wanted.spec, name) != getattr(before.spec, name):
            raise ApiError.field(f"/spec/{name}", "It can't be changed this way.")
    changed = await exchange.call(
        requests.UpdateDatastore(
            id=exchange.id,
            warning_percent=wanted.spec.warning_percent,
            critical_percent=wanted.spec.critical_percent,
            revision=found.revision,
        )
    )
    return json_response(changed, version=changed.revision)


async def rename_datastore(exchange: Exchange[WaitQuery, RenameDatastoreBody]) -> Response:
    request = requests.RenameDatastore(id=exchange.id, new_id=exchange.body.id)
    return await accepted(exchange, await exchange.call(request), exchange.query.wait)


async def mount_datastore(exchange: Exchange[MountQuery, NoBody]) -> Response:
    """Mount a datastore that is unmounted, or that another host uses."""
    request = requests.MountDatastore(id=exchange.id, take_over=exchange.query.take_over)
    return await accepted(exchange, await exchange.call(request), exchange.query.wait)


async def unmount_datastore(exchange: Exchange[WaitQuery, NoBody]) -> Response:
    """Unmount a datastore and keep it so."""
    request = requests.UnmountDatastore(id=exchange.id)
    return await accepted(exchange, await exchange.call(request), exchange.query.wait)


async def grow_datastore(exchange: Exchange[WaitQuery, NoBody]) -> Response:
    """Take the space that the disks have gained."""
    request = requests.GrowDatastore(id=exchange.id)
    return await accepted(exchange, await exchange.call(request), exchange.query.wait)


async def add_disk(exchange: Exchange[WaitQuery, AddDiskBody]) -> Response:
    """Give a datastore one disk more."""
    request = requests.AddDatastoreDisk(
        id=exchange.id, disk=exchange.body.disk, wipe_serials=exchange.body.wipe_serials
    )
    return await accepted(exchange, await exchange.call(request), exchange.query.wait)


async def replace_disk(exchange: Exchange[WaitQuery, ReplaceDiskBody]) -> Response:
    """Put a disk in the place of another."""
    body = exchange.body
    request = requests.ReplaceDatastoreDisk(
        id=exchange.id, old=body.old, new=body.new, wipe_serials=body.wipe_serials
    )
    return await accepted(exchange, await exchange.call(request), exchange.query.wait)


async def delete_datastore(exchange: Exchange[WaitQuery, NoBody]) -> Response:
    """Unmount and forget a datastore."""
    operation = await exchange.call(requests.DeleteDatastore(id=exchange.id))
    return await accepted(exchange, operation, exchange.query.wait)


_CHANGE_PROBLEMS = (
    ErrorCode.NOT_FOUND,
    ErrorCode.CONFLICT,
    ErrorCode.IN_USE,
    ErrorCode.UNAVAILABLE,
    ErrorCode.UNSUPPORTED,
)


def _action(
    path: str,
    name: str,
    summary: str,
    handler: Any,
    body: Any = NoBody,
    examples: Mapping[str, Any] = {},
) -> AnyRoute:
    """A change of a datastore that is an operation."""
    problems: tuple[ProblemCode, ...] = _CHANGE_PROBLEMS
    if "disks" in path:
        problems = (*problems, ErrorCode.WIPE_NOT_CONFIRMED)
    elif "rename" in path:
        problems = (*problems, ErrorCode.ALREADY_EXISTS)
    return Route(
        method="POST",
        path=f"/v1/datastores/{{id}}/{path}",
        name=name,
        summary=summary,
        handler=handler,
        role=Role.ADMIN,
        query=MountQuery if path == "mount" else WaitQuery,
        body=body,
        body_kind=BodyKind.NONE if body is NoBody else BodyKind.JSON,
        examples=examples,
        replies=STARTED,
        problems=problems,
    )


TAGS = {"datastores": "Places for virtual machines, volumes and images."}
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/datastores",
        name="listDatastores",
        summary="All datastores, ordered by id",
        handler=list_datastores,
        query=list_parameters(DATASTORE_LISTING),
        replies=(Reply(status=200, description="A page of datastores.", body=PageOf[Datastore]),),
    ),
    Route(
        method="GET",
        path="/v1/datastores/{id}",
        name="getDatastore",
        summary="One datastore",
        details="What it is made of, whether it can be used, and how much space is left.",
        handler=get_datastore,
        replies=(Reply(status=200, description="The datastore.", body=Datastore, etag=True),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        method="PUT",
        path="/v1/datastores/{id}",
        name="createDatastore",
        summary="Create a datastore, or adopt the one that is there",
        handler=create_datastore,
        role=Role.ADMIN,
        query=WaitQuery,
        body=DatastoreBody,
        body_kind=BodyKind.JSON,
        examples={
            "a blank disk": {"spec": {"kind": "local", "disk": "S3Z9NB0K123456"}},
            "NFS": {
                "spec": {"kind": "nfs", "nfs": {"server": "nas.example", "export": "/export/mica"}}
            },
        },
        condition=Condition.CREATE,
        replies=STARTED,
        problems=(
            ErrorCode.NOT_FOUND,
            ErrorCode.ALREADY_EXISTS,
            ErrorCode.CONFLICT,
            ErrorCode.IN_USE,
            ErrorCode.WIPE_NOT_CONFIRMED,
            ErrorCode.UNSUPPORTED,
        ),
    ),
    Route(
        method="DELETE",
        path="/v1/datastores/{id}",
        name="deleteDatastore",
        summary="Remove a datastore from this host; its data stay on the disk",
        handler=delete_datastore,
        role=Role.ADMIN,
        query=WaitQuery,
        replies=STARTED,
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.IN_USE),
    ),
    Route(
        method="PATCH",
        path="/v1/datastores/{id}",
        name="patchDatastore",
        summary="Change a datastore's thresholds by a merge patch (RFC 7396)",
        handler=patch_datastore,
        role=Role.ADMIN,
        body=DatastoreBody,
        body_kind=BodyKind.MERGE_PATCH,
        examples={"warn earlier": {"spec": {"warning_percent": 70}}},
        condition=Condition.MATCH,
        replies=(
            Reply(status=200, description="The datastore is changed.", body=Datastore, etag=True),
        ),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.REVISION_MISMATCH),
    ),
    _action(
        "rename",
        "renameDatastore",
        "Rename a datastore on this host; its virtual machines are updated",
        rename_datastore,
        RenameDatastoreBody,
        {"the new name": {"id": "archive"}},
    ),
    _action(
        "mount",
        "mountDatastore",
        "Mount a datastore that is unmounted, or that another host uses",
        mount_datastore,
    ),
    _action(
        "unmount",
        "unmountDatastore",
        "Unmount a datastore; it stays known, and unmounted across restarts",
        unmount_datastore,
    ),
    _action(
        "grow", "growDatastore", "Grow a datastore to the present size of its disks", grow_datastore
    ),
    _action(
        "disks",
        "addDatastoreDisk",
        "Add a disk to a datastore: a spare for `raid`, space for `lvm`",
        add_disk,
        AddDiskBody,
        {"a blank disk": {"disk": "S3Z9NB0K654321"}},
    ),
    _action(
        "disks/replace",
        "replaceDatastoreDisk",
        "Replace a disk of a `raid` datastore, and start the rebuild",
        replace_disk,
        ReplaceDiskBody,
        {"a blank disk for a dead one": {"old": "S3Z9NB0K123456", "new": "S3Z9NB0K654321"}},
    ),
)
