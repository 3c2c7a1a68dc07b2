"""Starting and ending guests: actions on one VM, and the end of all with the host."""

from __future__ import annotations

from collections.abc import Callable

from vmkernel.model import (
    ErrorCode,
    MicaError,
    Operation,
    Progress,
    Subject,
    VmAction,
)
from vmkernel.vm.context import VmContext
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.ports import OperationHandle, Operations
from vmkernel.vm.spec_review import SpecReview
from vmkernel.vm.start.files import refuse_template
from vmkernel.vm.states import VmRequest, has_reached, request_of

__all__ = ["VmPower"]

_UNCHANGED_S = 1.0
"""How long an action that finds its aim reached is waited for, so that its answer says so."""


class VmPower:
    """For all VMs of a host."""

    def __init__(
        self,
        host: VmContext,
        inventory: VmInventory,
        review: SpecReview,
        operations: Operations,
    ) -> None:
        self._host = host
        self._inventory = inventory
        self._review = review
        self._operations = operations

    def active(self) -> tuple[str, ...]:
        """The VMs whose guests run, or are about to."""
        return tuple(driver.vm_id for driver in self._inventory.drivers() if driver.active)

    async def act(self, vm_id: str, action: VmAction, *, timeout_s: float, actor: str) -> Operation:
        """Begin an action; refused at once if it isn't legal now."""
        driver = self._inventory.driver(vm_id)
        await driver.ready()
        request = request_of(action)
        kind, subject = f"vm.{action.value}", Subject(kind="vm", id=vm_id)
        reached = has_reached(request, driver.state)
        if reached:
            for operation in self._operations.running(subject):
                if operation.kind == kind:
                    return operation
        else:
            driver.check(request)
        if request is VmRequest.START:
            refuse_template(driver.definition)

        async def work(handle: OperationHandle) -> None:
            if request is VmRequest.START:
                self._review.check_references(vm_id, driver.definition.spec)
            try:
                await driver.ask(request, timeout_s=timeout_s, on_progress=handle.progress)
            except MicaError as error:
                if error.problem.code is not ErrorCode.ALREADY_IN_STATE:
                    raise
                handle.nothing_to_do()

        operation = self._operations.begin(
            kind,
            subject,
            work,
            actor=actor,
            cancellable=action in (VmAction.SHUTDOWN, VmAction.SUSPEND),
        )
        return await self._operations.wait(operation.id, _UNCHANGED_S) if reached else operation

    async def shutdown_all(
        self,
        *,
        timeout_s: float,
        force: bool,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> tuple[str, ...]:
        """End all guests as their specs say, at most `timeout_s` for all together.

        With `force`, those that don't end in their time are powered off; the ids of these, or of
        the ones that go on running, are returned. From then on no VM is started of itself.
        """
        from vmkernel.vm.lifecycle.host_shutdown import end_guests

        self._host.ending.set()
        return await end_guests(
            self._inventory.drivers(), timeout_s=timeout_s, force=force, on_progress=on_progress
        )

    def shutdown_cancelled(self) -> None:
        """The host goes on after all: restart policies count again."""
        self._host.ending.clear()
