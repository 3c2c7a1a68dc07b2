"""Operations. Events are streamed by the server itself."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.handlers.paging import cut
from vmkernel.control.requests import (
    CancelOperation,
    GetOperation,
    ListOperations,
    OperationPage,
)
from vmkernel.model import Operation
from vmkernel.operations import OperationRegistry

__all__ = ["register"]


def register(dispatcher: Dispatcher, operations: OperationRegistry) -> None:
    """Serve the requests about operations."""

    async def list_operations(request: ListOperations, _: Caller) -> OperationPage:
        items, more = cut(operations.all(), lambda item: item.id, request.after, request.limit)
        return OperationPage(items=items, more=more)

    async def get_operation(request: GetOperation, _: Caller) -> Operation:
        return await operations.wait(request.id, request.wait_s)

    async def cancel_operation(request: CancelOperation, caller: Caller) -> Operation:
        return await operations.cancel(request.id, caller.actor)

    dispatcher.register(ListOperations, list_operations)
    dispatcher.register(GetOperation, get_operation)
    dispatcher.register(CancelOperation, cancel_operation)
