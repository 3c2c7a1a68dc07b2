"""Clones of virtual machines."""

from __future__ import annotations

from remote_api.http.exchange import Exchange, Response
from remote_api.http.routing import AnyRoute, BodyKind, Route
from remote_api.resources.operations import STARTED, accepted
from remote_api.schema import CloneBody, WaitQuery
from vmkernel.control import requests
from vmkernel.model import ErrorCode, Role

__all__ = ["ROUTES"]


async def clone_vm(exchange: Exchange[WaitQuery, CloneBody]) -> Response:
    """Make a virtual machine of another."""
    operation = await exchange.call(
        requests.CloneVm(
            source=exchange.id,
            id=exchange.body.id,
            spec=exchange.body.spec,
        )
    )
    return await accepted(exchange, operation, exchange.query.wait)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/v1/vms/{id}/clone",
        name="cloneVm",
        summary="Clone a stopped virtual machine, a template or a snapshot",
        handler=clone_vm,
        role=Role.OPERATOR,
        query=WaitQuery,
        body=CloneBody,
        body_kind=BodyKind.JSON,
        examples={"a copy": {"id": "web-2", "spec": {"name": "The second"}}},
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
)
