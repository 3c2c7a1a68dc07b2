"""Which VMs there are: one driver for each that can be used, a reason for each that can't. What
they have reserved (ids, MAC addresses, volumes, users) is kept beside it."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from vmkernel import clock
from vmkernel.model import (
    ErrorCode,
    Finding,
    MicaError,
    Severity,
    Vm,
    VmSpec,
    VmState,
    VmStatus,
)
from vmkernel.vm.context import VmContext
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.guest.agent import GuestAgent
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.nonvolatile.secure_boot import findings_of_keys
from vmkernel.vm.reservations import Reservations
from vmkernel.vm.states import AT_REST, VmRequest
from vmkernel.vm.store import definition as definitions
from vmkernel.vm.store.definition import VmDefinition

__all__ = ["UnusableVm", "VmInventory"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnusableVm:
    """A VM folder that can't be used now, and why."""

    datastore: str
    folder: Path
    reason: str
    definition: VmDefinition | None = None

    def view(self) -> Vm:
        known = self.definition
        return Vm(
            id=self.folder.name,
            revision=known.revision if known else 0,
            created_at=known.created_at if known else clock.format_time(0),
            spec=known.spec if known else VmSpec(datastore=self.datastore),
            status=VmStatus(
                state=VmState.UNUSABLE,
                uuid=known.uuid if known else "",
                machine_type=known.machine_type if known else "",
                reason=self.reason,
            ),
        )


@dataclass(frozen=True)
class _Running:
    """A driver and its task."""

    driver: VmDriver
    task: asyncio.Task[None]


Outcome = TypeVar("Outcome")


class VmInventory:
    """The VMs of a host."""

    def __init__(self, host: VmContext) -> None:
        self._host = host
        self._drivers: dict[str, _Running] = {}
        self._unusable: dict[str, UnusableVm] = {}
        self.reservations = Reservations()

    # --- life ---------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop; running VMs keep running."""
        tasks = [running.task for running in self._drivers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drivers.clear()

    def findings(self) -> Iterator[Finding]:
        """Faults of VM folders."""
        for vm_id, broken in sorted(self._unusable.items()):
            yield _unusable(vm_id, broken.reason)
        for vm_id, running in sorted(self._drivers.items()):
            if (fault := self._fault(running.driver)) is not None:
                yield _unusable(vm_id, fault)
            for snapshot, reason in sorted(running.driver.broken_snapshots.items()):
                yield Finding(
                    code="snapshot-unusable",
                    severity=Severity.WARNING,
                    message=f"Snapshot {snapshot} of VM {vm_id} can't be used: {reason}. Delete it"
                    " to free the room that it takes.",
                    subject=vm_id,
                )
        yield from findings_of_keys(
            {vm_id: running.driver.secure_boot for vm_id, running in self._drivers.items()}
        )

    # --- reading ------------------------------------------------------------------------------

    def list_vms(self) -> tuple[Vm, ...]:
        """All VMs, ordered by id."""
        self.forget_gone()
        return tuple(self._view(vm_id) for vm_id in sorted({*self._drivers, *self._unusable}))

    def page(self, after: str | None, limit: int) -> tuple[tuple[Vm, ...], bool]:
        """At most `limit` VMs ordered by id, from the first after the id `after`, and whether
        others follow."""
        self.forget_gone()
        ids = sorted([*self._drivers, *self._unusable])  # in order already, for the most part
        start = 0 if after is None else bisect_right(ids, after)
        shown = ids[start : start + limit]
        return tuple(self._view(vm_id) for vm_id in shown), len(ids) > start + limit

    def states(self) -> dict[str, VmState]:
        """Every VM's state by its id."""
        found = {
            vm_id: VmState.UNUSABLE if self._fault(running.driver) else running.driver.state
            for vm_id, running in self._drivers.items()
        }
        return found | dict.fromkeys(self._unusable, VmState.UNUSABLE)

    def _view(self, vm_id: str) -> Vm:
        broken = self._unusable.get(vm_id)
        return self.view(self._drivers[vm_id].driver) if broken is None else broken.view()

    def view(self, driver: VmDriver) -> Vm:
        """A VM as clients see it: one that is off and has a disk that can't be used is shown as
        unusable. Its spec can be changed, and it can be deleted.
        """
        view = driver.view()
        if (fault := self._fault(driver)) is None:
            return view
        return replace(view, status=replace(view.status, state=VmState.UNUSABLE, reason=fault))

    def _fault(self, driver: VmDriver) -> str | None:
        """Why a VM that is off could not be started, as far as its disks are to blame."""
        if driver.state not in AT_REST:
            return None
        for disk in driver.definition.spec.disks:
            if (fault := self._host.storage.fault(disk.volume)) is not None:
                return f"Its disk {disk.key} ({disk.volume}) can't be used: {fault}."
        return None

    def get(self, vm_id: str) -> Vm:
        """One VM; `not-found` otherwise."""
        self.forget_gone()
        if vm_id in self._unusable:
            return self._unusable[vm_id].view()
        return self.view(self.driver(vm_id))

    # --- VMs that can't be used -----------------------------------------------------------------

    def note_unusable(self, vm: UnusableVm) -> None:
        """A VM's folder holds none that can be used."""
        self.reservations.drop(vm.folder.name)
        self._unusable[vm.folder.name] = vm

    def set_aside(self, datastore: str) -> None:
        """A datastore has gone: those of its VMs that nothing runs of can't be used until it comes
        back."""
        for vm_id, running in list(self._drivers.items()):
            definition = running.driver.definition
            if definition.spec.datastore == datastore and not running.driver.holds_files:
                del self._drivers[vm_id]
                running.task.cancel()
                self._unusable[vm_id] = UnusableVm(
                    datastore,
                    running.driver.folder,
                    f"Its datastore {datastore} is not there.",
                    definition,
                )

    @property
    def has_unusable(self) -> bool:
        """True if there are VMs that can't be used."""
        return bool(self._unusable)

    @property
    def all_readable(self) -> bool:
        """True if the definition of every VM could be read."""
        return all(broken.definition is not None for broken in self._unusable.values())

    def forget_gone(self) -> None:
        """Set aside the VMs that ended after their datastore had gone, and drop those of
        datastores that this host no longer knows."""
        for datastore in self.reservations.datastores - set(self._host.storage.datastores()):
            self.set_aside(datastore)
        for vm_id, broken in list(self._unusable.items()):
            try:
                self._host.storage.vms_folder(broken.datastore)
            except MicaError as error:
                if error.problem.code is ErrorCode.NOT_FOUND:
                    del self._unusable[vm_id]
                    self.reservations.drop(vm_id)

    def free_uid(self) -> int:
        """A user number that no VM has."""
        uid = self.reservations.free_uid(definitions.FIRST_UID, definitions.LAST_UID)
        if uid is None:
            raise MicaError(
                ErrorCode.INSUFFICIENT_RESOURCES, "No user number is left for another VM."
            )
        return uid

    # --- drivers ------------------------------------------------------------------------------

    def driver(self, vm_id: str) -> VmDriver:
        """The driver of a VM; `not-found`, or `conflict` if the VM is unusable."""
        running = self._drivers.get(vm_id)
        if running is not None:
            return running.driver
        broken = self._unusable.get(vm_id)
        if broken is not None:
            raise MicaError(ErrorCode.CONFLICT, f"VM {vm_id} is unusable: {broken.reason}")
        raise MicaError(ErrorCode.NOT_FOUND, f"There is no VM {vm_id}.")

    def find(self, vm_id: str) -> VmDriver | None:
        """The driver of a VM; None if there is none, or the VM is unusable."""
        running = self._drivers.get(vm_id)
        return None if running is None else running.driver

    def process_of(self, vm_id: str) -> int | None:
        """The process id of a VM's QEMU; None if it has none."""
        return self._host.launcher.main_pid(vm_id)

    async def use(
        self,
        vm_id: str,
        request: VmRequest,
        work: Callable[[RunningVm], Awaitable[Outcome]],
    ) -> Outcome:
        """Short work with a VM's QEMU, inside its owner task; see VmDriver.use."""
        driver = self.driver(vm_id)
        await driver.ready()
        driver.check(request)
        return await driver.use(request, work)

    def agent(self, vm_id: str) -> GuestAgent:
        """The agent in a VM's guest."""
        return self.driver(vm_id).agent

    def hold(
        self, vm_id: str, reason: str, blocks: frozenset[VmRequest]
    ) -> AbstractContextManager[None]:
        """Block requests during long work on a VM; see OperationLocks.hold."""
        return self.driver(vm_id).hold(reason, blocks)

    def drivers(self) -> tuple[VmDriver, ...]:
        """The drivers of all usable VMs."""
        return tuple(running.driver for running in self._drivers.values())

    def known(self, vm_id: str) -> bool:
        """True if the id is taken."""
        return (
            vm_id in self._drivers
            or vm_id in self._unusable
            or self.reservations.is_changing(vm_id)
        )

    def unusable(self, vm_id: str) -> UnusableVm | None:
        """The record of a VM that can't be used."""
        return self._unusable.get(vm_id)

    async def forget(self, vm_id: str) -> None:
        """Drop a VM that was deleted, once its task has ended."""
        self._unusable.pop(vm_id, None)
        running = self._drivers.pop(vm_id, None)
        self.reservations.drop(vm_id)
        if running is not None:
            await asyncio.wait((running.task,))

    def adopt(self, definition: VmDefinition, folder: Path) -> VmDriver:
        """Begin to drive a VM, which may have been unusable."""
        self._unusable.pop(definition.id, None)

        def renewed(new: VmDefinition) -> None:
            running = self._drivers.get(new.id)
            if running is not None and running.driver is driver:
                self.reservations.note(new.id, new.spec, new.uid)

        driver = VmDriver(self._host, definition, folder, renewed)
        task = asyncio.create_task(driver.run(), name=f"vm-{definition.id}")
        task.add_done_callback(self._driver_ended)
        self._drivers[definition.id] = _Running(driver, task)
        renewed(definition)
        return driver

    def _driver_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.critical("%s failed", task.get_name(), exc_info=task.exception())


def _unusable(vm_id: str, reason: str) -> Finding:
    return Finding(
        code="vm-unusable",
        severity=Severity.WARNING,
        message=f"VM {vm_id} is unusable: {reason}",
        subject=vm_id,
    )
