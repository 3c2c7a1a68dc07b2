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
    """What the VM side offers to requests. `Clones` implements it."""

    async def clone(self, vm_id: str, new_id: str, spec: CloneSpec, *, actor: str) -> Operation:
        """Begin to make a VM of another."""
        ...


def register(dispatcher: Dispatcher, service: Callable[[], CloneService]) -> None:
    """Serve the requests about clones; the service is made at the first."""

    @dispatcher.handler
    async def clone(request: CloneVm, caller: Caller) -> Operation:
        return await service().clone(request.source, request.id, request.spec, actor=caller.actor)
