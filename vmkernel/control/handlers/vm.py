"""Virtual machines."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.requests import (
    ActOnVm,
    CreateVm,
    DeleteVm,
    Done,
    GetVm,
    ListVms,
    UpdateVm,
    VmPage,
)
from vmkernel.model import Operation, Vm
from vmkernel.vm.ports import VmDirectory

__all__ = ["register"]


def register(dispatcher: Dispatcher, vms: VmDirectory) -> None:
    """Serve the requests about virtual machines."""

    async def list_vms(request: ListVms, _: Caller) -> VmPage:
        items, more = vms.page(request.after, request.limit)
        return VmPage(items=items, more=more)

    async def get_vm(request: GetVm, _: Caller) -> Vm:
        return vms.get(request.id)

    async def create_vm(request: CreateVm, caller: Caller) -> Vm:
        return await vms.create(request.id, request.spec, actor=caller.actor)

    async def update_vm(request: UpdateVm, caller: Caller) -> Vm:
        return await vms.update(request.id, request.spec, request.revision, actor=caller.actor)

    async def delete_vm(request: DeleteVm, caller: Caller) -> Done:
        await vms.delete(
            request.id,
            revision=request.revision,
            with_volumes=request.with_volumes,
            actor=caller.actor,
        )
        return Done()

    async def act(request: ActOnVm, caller: Caller) -> Operation:
        return await vms.act(
            request.id, request.action, timeout_s=request.timeout_s, actor=caller.actor
        )

    dispatcher.register(ListVms, list_vms)
    dispatcher.register(GetVm, get_vm)
    dispatcher.register(CreateVm, create_vm)
    dispatcher.register(UpdateVm, update_vm)
    dispatcher.register(DeleteVm, delete_vm)
    dispatcher.register(ActOnVm, act)
