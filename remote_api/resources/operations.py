"""Operations, and the answer of everything that starts one."""

from __future__ import annotations

from typing import Any

from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.routing import AnyRoute, NoBody, Reply, Route
from remote_api.schema import (
    ApiError,
    HttpCode,
    ListParameters,
    NoQuery,
    PageOf,
    WaitQuery,
    list_parameters,
)
from vmkernel.control import requests
from vmkernel.model import (
    OPERATION_LISTING,
    ErrorCode,
    Operation,
    OperationState,
    Role,
)

__all__ = ["ROUTES", "STARTED", "TAGS", "accepted", "raise_failed", "settled"]

_ASK_AGAIN_S = 1
"""Seconds until a client that polls may ask again; with `wait` it needn't poll."""
STARTED = (
    Reply(
        status=202,
        description="The operation is running.",
        body=Operation,
        location=True,
        headers={"Retry-After": "Seconds to wait before asking for the operation."},
    ),
    Reply(status=200, description="The operation has finished.", body=Operation, location=True),
)
"""The replies of every route that ends in `accepted`."""


async def settled(exchange: Exchange[Any, Any], operation: Operation, wait_s: float) -> Operation:
    """An operation once it has finished or the time is over."""
    if wait_s > 0 and not operation.state.finished:
        return await exchange.call(
            requests.GetOperation(id=operation.id, wait_s=wait_s), timeout_s=wait_s + 30
        )
    return operation


def raise_failed(operation: Operation) -> None:
    """Raise ApiError, which names the operation, if it has failed or was cancelled."""
    if operation.error is not None:
        failure = operation.error
        error = ApiError(failure.code, failure.detail, errors=failure.errors)
    elif operation.state in (OperationState.FAILED, OperationState.CANCELLED):
        error = ApiError(
            HttpCode.CANCELLED,
            f"The operation {operation.id} ({operation.kind}) was {operation.state.value}.",
        )
    else:
        return
    error.operation = operation.id
    error.headers["location"] = f"/v1/operations/{operation.id}"
    raise error


async def accepted(exchange: Exchange[Any, Any], operation: Operation, wait_s: float) -> Response:
    """The response of a request that starts an operation: 202, or 200 if it succeeded within the
    wait.

    Raises ApiError if it failed: clients that check only the status must notice.
    """
    now = await settled(exchange, operation, wait_s)
    raise_failed(now)
    response = json_response(
        now,
        status=200 if now.state.finished else 202,
        location=f"/v1/operations/{now.id}",
    )
    if not now.state.finished:
        response.headers["retry-after"] = str(_ASK_AGAIN_S)
    return response


async def list_operations(exchange: Exchange[ListParameters, NoBody]) -> Response:
    return await answer_list(exchange, requests.ListOperations)


async def get_operation(exchange: Exchange[WaitQuery, NoBody]) -> Response:
    wait_s = exchange.query.wait
    operation = await exchange.call(
        requests.GetOperation(id=exchange.id, wait_s=wait_s), timeout_s=wait_s + 30
    )
    return json_response(operation)


async def cancel_operation(exchange: Exchange[NoQuery, NoBody]) -> Response:
    operation = await exchange.call(requests.CancelOperation(id=exchange.id))
    return json_response(operation)


TAGS = {"operations": "Work that outlasts its request."}
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/operations",
        name="listOperations",
        summary="Running and recent operations, oldest first",
        handler=list_operations,
        query=list_parameters(OPERATION_LISTING),
        replies=(Reply(status=200, description="A page of operations.", body=PageOf[Operation]),),
    ),
    Route(
        method="GET",
        path="/v1/operations/{id}",
        name="getOperation",
        summary="One operation; with `wait`, once it has finished or the time is over",
        handler=get_operation,
        query=WaitQuery,
        replies=(Reply(status=200, description="The operation.", body=Operation),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        method="POST",
        path="/v1/operations/{id}/cancel",
        name="cancelOperation",
        dry_run=False,
        summary="Cancel an operation",
        details="It ends as `cancelled` once its work is undone, or finishes if it can no longer"
        " be stopped.",
        handler=cancel_operation,
        role=Role.OPERATOR,
        replies=(
            Reply(status=200, description="The operation after the request.", body=Operation),
        ),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    ),
)
