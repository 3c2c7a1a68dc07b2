"""Operations. Events are streamed by the server itself."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.lists import answer_from
from vmkernel.control.requests import (
    CancelOperation,
    GetOperation,
    ListOperations,
    Page,
)
from vmkernel.model import Operation
from vmkernel.operations import OperationRegistry

__all__ = ["register"]


def register(dispatcher: Dispatcher, operations: OperationRegistry) -> None:
    @dispatcher.handler
    async def list_operations(request: ListOperations, _: Caller) -> Page:
        return await answer_from(request, operations.all())

    @dispatcher.handler
    async def get_operation(request: GetOperation, _: Caller) -> Operation:
        return await operations.wait(request.id, request.wait_s)

    @dispatcher.handler
    async def cancel_operation(request: CancelOperation, caller: Caller) -> Operation:
        return await operations.cancel(request.id, caller.actor)
