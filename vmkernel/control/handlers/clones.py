"""Clones of virtual machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.requests import CloneVm
from vmkernel.model import Operation

if TYPE_CHECKING:
    from vmkernel.vm.clone.service import Clones

__all__ = ["register"]


def register(dispatcher: Dispatcher, service: Callable[[], Clones]) -> None:
    """The service is made when it is first needed."""

    @dispatcher.handler
    async def clone(request: CloneVm, caller: Caller) -> Operation:
        return await service().clone(request.source, request.id, request.spec, actor=caller.actor)
