"""Clones of virtual machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.requests import CloneVm
from vmkernel.model import CloneSpec, Operation

__all__ = ["CloneService", "register"]


class CloneService(Protocol):
    """Implemented by `Clones`."""

    async def clone(self, vm_id: str, new_id: str, spec: CloneSpec, *, actor: str) -> Operation:
        """Begin to make a VM from another one."""
        ...


def register(dispatcher: Dispatcher, service: Callable[[], CloneService]) -> None:
    """The service is made when it is first needed."""

    @dispatcher.handler
    async def clone(request: CloneVm, caller: Caller) -> Operation:
        return await service().clone(request.source, request.id, request.spec, actor=caller.actor)
