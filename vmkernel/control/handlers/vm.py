"""Virtual machines."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.lists import EncodedItems, Fetched, Selection, answer
from vmkernel.control.requests import (
    ActOnVm,
    CreateVm,
    DeleteVm,
    Done,
    GetVm,
    ListVms,
    Page,
    UpdateVm,
)
from vmkernel.model import Operation, Role, Vm
from vmkernel.vm.changes import VmChanges
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.power import VmPower

__all__ = ["register", "shown"]


def register(dispatcher: Dispatcher, vms: VmInventory, changes: VmChanges, power: VmPower) -> None:
    """Serve the requests about virtual machines."""

    kept = EncodedItems()

    async def fetch(_: Selection, after: str | None, limit: int) -> Fetched:
        return vms.page(after, limit)

    @dispatcher.handler
    async def list_vms(request: ListVms, _: Caller) -> Page:
        return await answer(request, fetch, shown=shown, kept=kept)

    @dispatcher.handler
    async def get_vm(request: GetVm, caller: Caller) -> Vm:
        return shown(vms.get(request.id), caller)

    @dispatcher.handler
    async def create_vm(request: CreateVm, caller: Caller) -> Vm:
        vm = await changes.create(
            request.id, request.spec, actor=caller.actor, machine=request.machine
        )
        return shown(vm, caller)

    @dispatcher.handler
    async def update_vm(request: UpdateVm, caller: Caller) -> Vm:
        vm = await changes.update(request.id, request.spec, request.revision, actor=caller.actor)
        return shown(vm, caller)

    @dispatcher.handler
    async def delete_vm(request: DeleteVm, caller: Caller) -> Done:
        await changes.delete(
            request.id,
            revision=request.revision,
            with_volumes=request.with_volumes,
            actor=caller.actor,
        )
        return Done()

    @dispatcher.handler
    async def act(request: ActOnVm, caller: Caller) -> Operation:
        return await power.act(
            request.id, request.action, timeout_s=request.timeout_s, actor=caller.actor
        )


def shown(vm: Vm, caller: Caller | None = None) -> Vm:
    """Without secrets; its user data, which may hold some, are shown to operators, who ask for
    that VM alone."""
    if vm.spec.cloud_init is None:
        return vm
    from vmkernel.vm.spec.cloud_init.secrets import concealed

    trusted = caller is not None and caller.role in (Role.OPERATOR, Role.ADMIN)
    return concealed(vm, user_data=not trusted)
