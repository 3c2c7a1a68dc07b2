"""Which VMs there are: one driver for each that can be used, a reason for each that can't; and
what must be unique among them (ids, MAC addresses, volumes, users)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from vmkernel import clock
from vmkernel.host.files import exists, is_folder, names
from vmkernel.model import (
    SLUG_PATTERN,
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
from vmkernel.vm.datastore_use import datastores_of, left_running, perhaps_on
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.guest.agent import GuestAgent
from vmkernel.vm.machine.running_vm import Running
from vmkernel.vm.nonvolatile.secure_boot import findings_of_keys
from vmkernel.vm.reservations import OthersReservations, Reservations
from vmkernel.vm.spec import validation as spec_check
from vmkernel.vm.states import AT_REST, VmRequest
from vmkernel.vm.store import definition as definitions
from vmkernel.vm.store.clone_journal import sweep
from vmkernel.vm.store.definition import DefinitionError, VmDefinition

__all__ = ["UnusableVm", "VmInventory"]

_log = logging.getLogger(__name__)

_SLUG = re.compile(SLUG_PATTERN)
_LOADING = "vms-of-"


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
        self._clashes: dict[tuple[str, str], Finding] = {}
        self._reservations = Reservations()
        self._loaded: set[str] = set()
        """The datastores that are there, and whose VMs are known."""
        self._changing: set[str] = set()
        """VMs whose specs are being changed: what the new ones name is taken already."""
        self.cloning: set[str] = set()
        """The tokens of the clones under way."""
        self._sweeping = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the VMs of every datastore, and of those that appear later."""
        self._host.storage.on_datastore_change(self._datastore_changed)
        for datastore in self._host.storage.datastores():
            await self._load(datastore)

    async def stop(self) -> None:
        """Stop; running VMs keep running."""
        tasks = [running.task for running in self._drivers.values()]
        tasks += list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drivers.clear()

    async def loaded(self) -> None:
        """Wait until the VMs of all available datastores are known."""
        loads = [task for task in self._tasks if task.get_name().startswith(_LOADING)]
        if loads:
            await asyncio.wait(loads)

    def background(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run something until it ends or the inventory does; a failure is logged."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s failed", task.get_name(), exc_info=task.exception())

    def findings(self) -> Iterator[Finding]:
        """Faults of VM folders."""
        yield from self._clashes.values()
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
        self.forget_gone()
        return tuple(self._view(vm_id) for vm_id in sorted({*self._drivers, *self._unusable}))

    def page(self, after: str | None, limit: int) -> tuple[tuple[Vm, ...], bool]:
        self.forget_gone()
        ids = sorted([*self._drivers, *self._unusable])  # in order already, for the most part
        start = 0 if after is None else bisect_right(ids, after)
        shown = ids[start : start + limit]
        return tuple(self._view(vm_id) for vm_id in shown), len(ids) > start + limit

    def states(self) -> dict[str, VmState]:
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
        self.forget_gone()
        if vm_id in self._unusable:
            return self._unusable[vm_id].view()
        return self.view(self.driver(vm_id))

    def vm_of_volume(self, volume: str) -> str | None:
        return next(iter(self._reservations.vms_of_volume(volume)), None)

    def names_volume(self, volume: str) -> bool | None:
        if self._reservations.is_stored(volume):
            return True
        if self._reservations.vms_of_volume(volume) or not self._all_known():
            return None
        return False

    def _all_known(self) -> bool:
        """True if the spec of every VM is known that this host may have."""
        storage = self._host.storage
        return (
            self._loaded.issuperset(storage.known_datastores())
            and all(broken.definition is not None for broken in self._unusable.values())
            and not self._clashes
        )

    def volume_is_open(self, volume: str) -> bool:
        # Not the first VM that names it only: a datastore that came later may bring another one.
        return any(
            driver.needs_disks_as_they_are and _names(driver, volume)
            for driver in self._drivers_of(volume)
        )

    def active_vm_of_volume(self, volume: str) -> str | None:
        """The VM that has the volume open, or is just getting or leaving it."""
        return next(
            (
                driver.vm_id
                for driver in self._drivers_of(volume)
                if driver.active and _names(driver, volume)
            ),
            None,
        )

    def _drivers_of(self, volume: str) -> list[VmDriver]:
        """Those of the VMs that name a volume, or are about to."""
        return [
            self._drivers[vm_id].driver
            for vm_id in self._reservations.vms_of_volume(volume)
            if vm_id in self._drivers
        ]

    def snapshots_of(self, volume: str) -> tuple[str, ...]:
        return tuple(
            f"{vm_id}/{record.id}"
            for vm_id, running in sorted(self._drivers.items())
            for record in running.driver.snapshots.values()
            if any(disk.volume == volume for disk in record.disks)
        )

    def snapshot_tags(self, volume: str) -> frozenset[str] | None:
        if self._unusable or any(r.driver.broken_snapshots for r in self._drivers.values()):
            return None
        storage = self._host.storage
        if set(storage.known_datastores()) - set(storage.datastores()):
            return None
        return frozenset(
            record.tag
            for running in self._drivers.values()
            for record in running.driver.snapshots.values()
            if any(disk.volume == volume for disk in record.disks)
        )

    def vms_of_image(self, image: str) -> tuple[str, ...]:
        return self._reservations.vms_of_image(image)

    def vms_on_datastore(self, datastore: str, *, active: bool = False) -> tuple[str, ...]:
        found = set()
        for vm_id, spec in self._reservations.specs():
            running = self._drivers.get(vm_id)
            if active and not (running and running.driver.holds_files):
                continue
            if perhaps_on(self._host.storage, spec, datastore):
                found.add(vm_id)
        if active:
            found.update(left_running(self._host, self._drivers, datastore))
        return tuple(sorted(found))

    # --- datastores ---------------------------------------------------------------------------

    def _datastore_changed(self, datastore: str, available: bool) -> None:
        for running in self._drivers.values():
            spec = running.driver.definition.spec
            if running.driver.active and datastore in datastores_of(self._host.storage, spec):
                running.driver.datastore_changed(datastore, available)
        self._loaded.discard(datastore)
        if available:
            self.background(self._load(datastore), f"{_LOADING}{datastore}")
            return
        for vm_id, running in list(self._drivers.items()):
            driver = running.driver
            if driver.definition.spec.datastore == datastore and not driver.holds_files:
                self._set_aside(vm_id, running)
        self.forget_gone()  # before another datastore comes by the name of one that was deleted

    def _set_aside(self, vm_id: str, running: _Running) -> None:
        """Its datastore is gone, and it isn't running: it can't be used until the datastore is
        back.
        """
        del self._drivers[vm_id]
        running.task.cancel()
        definition = running.driver.definition
        self._unusable[vm_id] = UnusableVm(
            definition.spec.datastore,
            running.driver.folder,
            f"Its datastore {definition.spec.datastore} is not there.",
            definition,
        )

    async def _load(self, datastore: str) -> None:
        """Load the VMs of a datastore."""
        try:
            root = self._host.storage.vms_folder(datastore)
            found = await asyncio.to_thread(_read_folders, root)
        except (MicaError, OSError) as error:
            _log.warning("the VMs of datastore %s can't be read: %s", datastore, error)
            return
        async with self._sweeping:
            await sweep(self._host.storage, self.cloning)
        self.forget_gone()  # a renamed datastore's VMs are not in their own way
        starting = []
        for folder, result in found:
            vm_id = folder.name
            known = self._drivers.get(vm_id)
            if known is not None:
                if known.driver.folder != folder:
                    self._note_clash(datastore, vm_id, known.driver.definition.spec.datastore)
                continue
            other = self._unusable.get(vm_id)
            if other is not None and other.datastore != datastore:
                self._note_clash(datastore, vm_id, other.datastore)
                continue
            self._unusable.pop(vm_id, None)
            if isinstance(result, DefinitionError):
                self._reservations.drop(vm_id)
                self._unusable[vm_id] = UnusableVm(
                    datastore, folder, f"Its definition can't be used: {result}."
                )
                continue
            fitted = self._fitted(result, datastore)
            starting.append(self.adopt(fitted, folder))
            if fitted.uid != result.uid:
                await _write(folder, fitted)
        for driver in starting:
            await driver.ready()
        self._loaded.add(datastore)

    def _fitted(self, definition: VmDefinition, datastore: str) -> VmDefinition:
        """A definition as it is used here: a datastore may carry another name on this host, and
        a user number may be taken."""
        spec = definition.spec
        if spec.datastore != datastore:
            spec = replace(spec, datastore=datastore)
        uid = definition.uid
        taken = uid in self._reservations.uids(definition.id)
        if taken or not definitions.FIRST_UID <= uid <= definitions.LAST_UID:
            uid = self.free_uid()
        return replace(definition, spec=spec, uid=uid)

    def _note_clash(self, datastore: str, vm_id: str, owner: str) -> None:
        self._clashes[(datastore, vm_id)] = Finding(
            code="vm-id-clash",
            severity=Severity.WARNING,
            message=f"Datastore {datastore} holds a VM {vm_id} as datastore {owner} does:"
            " only the latter is shown.",
            subject=vm_id,
        )

    def forget_gone(self) -> None:
        """Set aside the VMs that ended after their datastore had gone, and drop those of
        datastores that this host no longer knows."""
        there = set(self._host.storage.datastores())
        if not self._reservations.datastores <= there:
            for vm_id, running in list(self._drivers.items()):
                driver = running.driver
                if driver.definition.spec.datastore not in there and not driver.holds_files:
                    self._set_aside(vm_id, running)
        for vm_id, broken in list(self._unusable.items()):
            try:
                self._host.storage.vms_folder(broken.datastore)
            except MicaError as error:
                if error.problem.code is ErrorCode.NOT_FOUND:
                    del self._unusable[vm_id]
                    self._reservations.drop(vm_id)

    # --- what must be unique ------------------------------------------------------------------

    @contextlib.contextmanager
    def reserve(self, vm_id: str, spec: VmSpec) -> Iterator[None]:
        """Reserve what a spec names while the change is in progress."""
        if vm_id in self._changing:
            raise MicaError(
                ErrorCode.CONFLICT, f"VM {vm_id} is being changed already; retry in a moment."
            )
        self._changing.add(vm_id)
        self._reservations.note(vm_id, spec, change=True)
        try:
            yield
        finally:
            self._reservations.drop(vm_id, change=True)
            self._changing.remove(vm_id)

    def macs(self, except_vm: str) -> OthersReservations:
        """The MAC addresses of all other VMs."""
        return self._reservations.macs(except_vm)

    def complete(self, vm_id: str, spec: VmSpec, previous: VmSpec | None = None) -> VmSpec:
        """See spec_check.completed; concealed secrets that are sent back are unchanged."""
        if spec.cloud_init is not None:
            from vmkernel.vm.spec.cloud_init.secrets import revealed

            spec = revealed(spec, previous)
        return spec_check.completed(
            spec,
            macs=self._reservations.macs(vm_id),
            cids=self._reservations.cids(vm_id),
            previous=previous,
            host_macs=self._host.network.host_macs() if spec.nics else (),
        )

    def free_uid(self) -> int:
        """A user number that no VM has."""
        uid = self._reservations.free_uid(definitions.FIRST_UID, definitions.LAST_UID)
        if uid is None:
            raise MicaError(
                ErrorCode.INSUFFICIENT_RESOURCES, "No user number is left for another VM."
            )
        return uid

    def check_references(self, vm_id: str, spec: VmSpec) -> None:
        """See spec_check.check_references."""
        spec_check.check_references(
            vm_id,
            spec,
            storage=self._host.storage,
            vm_of_volume=lambda volume: next(
                (vm for vm in self._reservations.vms_of_volume(volume) if vm != vm_id), None
            ),
            port_groups=self._host.network.port_groups(),
        )

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

    async def use(
        self,
        vm_id: str,
        request: VmRequest,
        work: Callable[[Running], Awaitable[Outcome]],
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
        return vm_id in self._drivers or vm_id in self._unusable or vm_id in self._changing

    def unusable(self, vm_id: str) -> UnusableVm | None:
        """The record of a VM that can't be used."""
        return self._unusable.get(vm_id)

    async def forget(self, vm_id: str) -> None:
        """Drop a VM that was deleted, once its task has ended."""
        self._unusable.pop(vm_id, None)
        running = self._drivers.pop(vm_id, None)
        self._reservations.drop(vm_id)
        if running is not None:
            await asyncio.wait((running.task,))

    def adopt(self, definition: VmDefinition, folder: Path) -> VmDriver:
        """Begin to drive a VM."""

        def renewed(new: VmDefinition) -> None:
            running = self._drivers.get(new.id)
            if running is not None and running.driver is driver:
                self._reservations.note(new.id, new.spec, new.uid)

        driver = VmDriver(self._host, definition, folder, renewed)
        task = asyncio.create_task(driver.run(), name=f"vm-{definition.id}")
        task.add_done_callback(self._driver_ended)
        self._drivers[definition.id] = _Running(driver, task)
        renewed(definition)
        return driver

    def _driver_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.critical("%s failed", task.get_name(), exc_info=task.exception())


def _names(driver: VmDriver, volume: str) -> bool:
    return any(disk.volume == volume for disk in driver.definition.spec.disks)


async def _write(folder: Path, definition: VmDefinition) -> None:
    """Store a changed user number, so that no other VM gets it later."""
    try:
        await asyncio.to_thread(definitions.save, folder, definition)
    except OSError as error:
        _log.warning("the user number of VM %s can't be kept: %s", definition.id, error)


def _unusable(vm_id: str, reason: str) -> Finding:
    return Finding(
        code="vm-unusable",
        severity=Severity.WARNING,
        message=f"VM {vm_id} is unusable: {reason}",
        subject=vm_id,
    )


def _read_folders(root: Path) -> list[tuple[Path, VmDefinition | DefinitionError]]:
    """Every VM folder with its content; a folder without `vm.json` isn't a VM."""
    found: list[tuple[Path, VmDefinition | DefinitionError]] = []
    for name in names(root):
        folder = root / name
        if not _SLUG.match(name) or not is_folder(folder):
            continue
        if not exists(folder / definitions.DEFINITION_FILE):
            continue
        try:
            found.append((folder, definitions.load(folder)))
        except DefinitionError as error:
            found.append((folder, error))
    return found
