"""The virtual machines of this host: which there are, and the way to each one's driver.

The service keeps the list and what must be unique among all VMs (ids, MAC addresses, volumes,
users); everything about one VM is its driver's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from vmkernel import clock
from vmkernel.devices import Family
from vmkernel.host import from_os_error, naming_datastore
from vmkernel.host.files import exists, make_directory
from vmkernel.model import (
    ConsoleKind,
    DisplayModel,
    ErrorCode,
    Finding,
    MachineState,
    MicaError,
    Operation,
    Progress,
    Subject,
    Vm,
    VmAction,
    VmSpec,
    VmState,
)
from vmkernel.vm.context import VmContext
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.lifecycle.agent_watch import watch_agents
from vmkernel.vm.lifecycle.autostart import Autostart
from vmkernel.vm.machine.running_vm import Running
from vmkernel.vm.ports import OperationHandle, Operations
from vmkernel.vm.spec.defaults import with_drivers
from vmkernel.vm.spec.scope import is_host_only
from vmkernel.vm.spec.validation import check_structure, family_of
from vmkernel.vm.start.files import refuse_template
from vmkernel.vm.states import WITH_QEMU, VmRequest, has_reached, request_of
from vmkernel.vm.store import definition as definitions
from vmkernel.vm.store.definition import VmDefinition

if TYPE_CHECKING:
    from vmkernel.vm.backup.service import VmBackups
    from vmkernel.vm.clone.service import Clones
    from vmkernel.vm.live_disks import VmLiveDisks
    from vmkernel.vm.snapshot_service import Snapshots

__all__ = ["VmService"]

Outcome = TypeVar("Outcome")

_log = logging.getLogger(__name__)

_SETTLED_S = 20.0
_KEYS_S = 5.0
_UNCHANGED_S = 1.0
"""How long an action that finds its aim reached is waited for, so that its answer says so."""


class VmService:
    def __init__(self, host: VmContext, operations: Operations) -> None:
        self._host = host
        self._operations = operations
        self._write_lock = asyncio.Lock()
        self._live_disks: VmLiveDisks | None = None
        self._snapshots: Snapshots | None = None
        self._backups: VmBackups | None = None
        self.inventory = VmInventory(host)

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        self._host.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.inventory.background(self._look_around(), "vm-surroundings")
        self.inventory.background(self._host.network.run(), "ports")
        await self.inventory.start()
        self.inventory.background(watch_agents(self.inventory), "guest-agents")
        self.inventory.background(self._watch_keys(), "secure-boot-keys")
        self.inventory.background(self._settle_moves(0), "settle-moves")
        self._host.storage.on_datastore_change(self._datastore_changed)
        autostart = Autostart(self._host, self.inventory, self._operations)
        self.inventory.background(autostart.run(), "autostart")

    async def stop(self) -> None:
        if self._backups is not None:
            await self._backups.close()
        await self.inventory.stop()
        await self._host.launcher.close()
        self._host.logs.close()

    async def _look_around(self) -> None:
        """Find out in advance what the first start would have to wait for.

        Asking QEMU takes a second on a slow machine, which the host's own start needs more.
        """
        await self._host.kvm()
        await asyncio.sleep(_SETTLED_S)
        try:
            await self._host.program()
        except MicaError as error:
            _log.warning("no VM can be started: %s", error)

    async def _watch_keys(self) -> None:
        """Read the Secure Boot keys of each VM that has stopped, one after the other."""
        while True:
            for driver in self.inventory.drivers():
                if driver.unseen_keys:
                    await driver.look_at_keys()
            await asyncio.sleep(_KEYS_S)

    def _datastore_changed(self, _: str, available: bool) -> None:
        if available:
            self.inventory.background(self._settle_moves(_SETTLED_S), "settle-moves")

    async def _settle_moves(self, delay_s: float) -> None:
        """Complete what the previous vmkernel was doing to the disks of running VMs."""
        await asyncio.sleep(delay_s)
        for driver in self.inventory.drivers():
            await driver.ready()
        if any(driver.active for driver in self.inventory.drivers()):
            await self.live_disks().settle()

    # --- reading ------------------------------------------------------------------------------

    def active(self) -> tuple[str, ...]:
        """The VMs whose guests run, or are about to."""
        return tuple(driver.vm_id for driver in self.inventory.drivers() if driver.active)

    def findings(self) -> Iterator[Finding]:
        """Faults of VM folders."""
        return self.inventory.findings()

    def list_vms(self) -> tuple[Vm, ...]:
        return self.inventory.list_vms()

    def page(self, after: str | None, limit: int) -> tuple[tuple[Vm, ...], bool]:
        return self.inventory.page(after, limit)

    def states(self) -> Mapping[str, VmState]:
        return self.inventory.states()

    def process_of(self, vm_id: str) -> int | None:
        return self._host.launcher.main_pid(vm_id)

    def promised_bytes(self) -> int:
        return self._host.admission.promised_bytes

    def get(self, vm_id: str) -> Vm:
        return self.inventory.get(vm_id)

    def vm_of_volume(self, volume: str) -> str | None:
        return self.inventory.vm_of_volume(volume)

    def names_volume(self, volume: str) -> bool | None:
        return self.inventory.names_volume(volume)

    def volume_is_open(self, volume: str) -> bool:
        return self.inventory.volume_is_open(volume)

    def vms_of_image(self, image: str) -> tuple[str, ...]:
        return self.inventory.vms_of_image(image)

    def vms_on_datastore(self, datastore: str, *, active: bool = False) -> tuple[str, ...]:
        return self.inventory.vms_on_datastore(datastore, active=active)

    def accelerator(self) -> str | None:
        """The accelerator of a VM started now, if it has been tried already."""
        probe = self._host.kvm.known
        return None if probe is None else ("kvm" if probe.usable else "tcg")

    def accelerator_reason(self) -> str | None:
        """Why it isn't KVM, if it isn't."""
        probe = self._host.kvm.known
        return None if probe is None else probe.reason

    # --- changing -----------------------------------------------------------------------------

    async def create(
        self,
        vm_id: str,
        spec: VmSpec,
        *,
        actor: str,
        machine: MachineState | None = None,
        prepare: Callable[[Path], None] = lambda _: None,
    ) -> Vm:
        """See VmDirectory. `prepare` fills the folder of a clone (it may block) before the VM
        exists.
        """
        from vmkernel.vm.nonvolatile.machine_state import check_state, write_state

        self.inventory.forget_gone()
        if self.inventory.known(vm_id):
            raise MicaError(ErrorCode.ALREADY_EXISTS, f"There is a VM {vm_id} already.")
        family = family_of(spec) if machine is None else Family.of(machine.machine_type)
        spec = self.inventory.complete(vm_id, with_drivers(spec, self._host.storage.image))
        check_structure(spec, family)
        self.inventory.check_references(vm_id, spec)
        await self._host.check_cpu_model(spec.cpus.model)
        if machine is not None:
            await asyncio.to_thread(check_state, self._host, machine)
        with self.inventory.reserve(vm_id, spec):
            self.inventory.check_references(vm_id, spec)  # something may have gone meanwhile
            program = await self._host.program()
            async with self._write_lock:
                definition = VmDefinition(
                    id=vm_id,
                    uuid=self._uuid(machine),
                    revision=1,
                    created_at=clock.now(),
                    machine_type=(
                        program.machine_type(family) if machine is None else machine.machine_type
                    ),
                    uid=self.inventory.free_uid(),
                    spec=spec,
                )
                folder = self._host.storage.vms_folder(spec.datastore) / vm_id

                def fill(folder: Path) -> None:
                    prepare(folder)
                    if machine is not None:
                        write_state(folder, machine)

                with naming_datastore(spec.datastore):
                    await _in_thread(f"VM {vm_id}", _make_folder, folder, definition, fill)
            driver = self.inventory.adopt(definition, folder)
            await self._host.storage.keep_volumes(disk.volume for disk in spec.disks)
        await driver.ready()
        self._publish("vm.created", vm_id, actor)
        return self.inventory.view(driver)

    def _uuid(self, machine: MachineState | None) -> str:
        if machine is None or machine.uuid is None:
            return str(uuid.uuid4())
        for driver in self.inventory.drivers():
            if driver.definition.uuid == machine.uuid:
                raise MicaError.field(
                    "/machine/uuid",
                    f"VM {driver.vm_id} has this UUID: delete it first, or leave the UUID out for"
                    " a new one.",
                    ErrorCode.CONFLICT,
                )
        return machine.uuid

    async def update(self, vm_id: str, spec: VmSpec, revision: int, *, actor: str) -> Vm:
        driver = self.inventory.driver(vm_id)
        old = driver.definition
        before = self.inventory.view(driver)
        _check_revision(vm_id, old.revision, revision)
        if spec.datastore != old.spec.datastore:
            raise MicaError.field("/spec/datastore", f"VM {vm_id} stays on its datastore.")
        spec = self.inventory.complete(vm_id, spec, old.spec)
        if spec == old.spec:
            return self.inventory.view(driver)
        host_only = is_host_only(old.spec, spec)
        request = VmRequest.RENAME if host_only else VmRequest.RECONFIGURE
        plugs = request is VmRequest.RECONFIGURE and driver.state in WITH_QEMU
        driver.check(VmRequest.OPERATE if plugs else request)
        if old.spec.template and not spec.template:
            for disk in old.spec.disks:
                self._host.storage.refuse_children(disk.volume)
        check_structure(spec, Family.of(old.machine_type))
        self.inventory.check_references(vm_id, spec)
        if spec.cpus.model != old.spec.cpus.model:
            await self._host.check_cpu_model(spec.cpus.model)

        def renew(known: VmDefinition, spec: VmSpec = spec) -> VmDefinition:
            _check_revision(vm_id, known.revision, revision)
            return replace(known, spec=spec, revision=revision + 1)

        with self.inventory.reserve(vm_id, spec):
            self.inventory.check_references(vm_id, spec)  # something may have gone meanwhile
            try:
                if plugs:
                    from vmkernel.vm.hotplug.apply import change_running

                    await change_running(self._host, driver, spec, renew)
                else:
                    await driver.change(request, renew)
            finally:
                stored = driver.definition.spec.disks
                await self._host.storage.keep_volumes(disk.volume for disk in stored)
        self._publish("vm.updated", vm_id, actor, before)
        return self.inventory.view(driver)

    async def delete(
        self,
        vm_id: str,
        *,
        revision: int | None = None,
        with_volumes: bool = False,
        actor: str,
    ) -> None:
        self.inventory.forget_gone()
        volumes: tuple[str, ...] = ()
        broken = self.inventory.unusable(vm_id)
        before = self.get(vm_id)
        if broken is not None:
            if revision is not None:
                _check_revision(vm_id, broken.view().revision, revision)
            self._host.storage.vms_folder(broken.datastore)
            await _in_thread(f"VM {vm_id}", definitions.delete, broken.folder)
            await self.inventory.forget(vm_id)
        else:
            driver = self.inventory.driver(vm_id)
            if revision is not None:
                _check_revision(vm_id, driver.definition.revision, revision)
            driver.check(VmRequest.DELETE)
            if driver.snapshots and not with_volumes:
                raise MicaError(
                    ErrorCode.CONFLICT,
                    f"VM {vm_id} has snapshots, which are in its volumes: delete them first, or"
                    " the volumes with the VM.",
                )
            for disk in driver.definition.spec.disks if with_volumes else ():
                self._host.storage.refuse_children(disk.volume)
            await self._forget_elsewhere(driver)
            await driver.ask(VmRequest.DELETE)
            await self.inventory.forget(vm_id)
            if with_volumes:
                volumes = tuple(disk.volume for disk in driver.definition.spec.disks)
        self._publish("vm.deleted", vm_id, actor, before)
        for volume in volumes:
            await self._host.storage.delete_volume(volume, actor=actor)

    async def _forget_elsewhere(self, driver: VmDriver) -> None:
        """Delete the snapshots in volumes that the VM doesn't have any more: once the VM is
        deleted, that isn't possible.
        """
        own = {disk.volume for disk in driver.definition.spec.disks}
        for snapshot in list(driver.snapshots.values()):
            if any(disk.volume not in own for disk in snapshot.disks):
                from vmkernel.vm.snapshots.delete import delete

                await driver.inside(VmRequest.SNAPSHOT, partial(delete, record=snapshot))

    async def act(self, vm_id: str, action: VmAction, *, timeout_s: float, actor: str) -> Operation:
        driver = self.inventory.driver(vm_id)
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
                self.inventory.check_references(vm_id, driver.definition.spec)
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

    async def open_console(
        self, vm_id: str, kind: ConsoleKind, *, actor: str = "somebody", origin: str = ""
    ) -> socket.socket:
        driver = self.inventory.driver(vm_id)
        await driver.ready()
        driver.check(VmRequest.CONSOLE)
        if kind is ConsoleKind.SERIAL:
            return driver.console.watch(actor, origin)
        if driver.definition.spec.display is DisplayModel.NONE:
            raise MicaError(ErrorCode.CONFLICT, f"VM {vm_id} has no display.")
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await driver.add_vnc_client(ours.fileno())
        except BaseException:
            theirs.close()
            raise
        finally:
            ours.close()
        return theirs

    async def shutdown_all(
        self,
        *,
        timeout_s: float,
        force: bool,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> tuple[str, ...]:
        from vmkernel.vm.lifecycle.host_shutdown import end_guests

        self._host.ending.set()
        return await end_guests(
            self.inventory.drivers(), timeout_s=timeout_s, force=force, on_progress=on_progress
        )

    def end_called_off(self) -> None:
        self._host.ending.clear()

    def live_disks(self) -> VmLiveDisks:
        """What changes the volumes that VMs have open."""
        if self._live_disks is None:
            from vmkernel.vm.live_disks import VmLiveDisks

            self._live_disks = VmLiveDisks(self.inventory, self._host)
        return self._live_disks

    def clones(self) -> Clones:
        """Makes VMs of others; holds nothing, so there is no need to keep it."""
        from vmkernel.vm.clone.service import Clones

        return Clones(self.inventory, self.create, self._host, self._operations)

    def snapshots(self) -> Snapshots:
        """Points that VMs can go back to."""
        if self._snapshots is None:
            from vmkernel.vm.snapshot_service import Snapshots

            self._snapshots = Snapshots(self.inventory, self._host, self._operations)
        return self._snapshots

    def snapshots_of(self, volume: str) -> tuple[str, ...]:
        return self.inventory.snapshots_of(volume)

    def snapshot_tags(self, volume: str) -> frozenset[str] | None:
        return self.inventory.snapshot_tags(volume)

    def backups(self, make_scratch: Callable[[str, int], Awaitable[Path]]) -> VmBackups:
        """What keeps disks readable for backups."""
        if self._backups is None:
            from vmkernel.vm.backup.service import VmBackups

            self._backups = VmBackups(self.inventory, self._host, make_scratch)
        return self._backups

    async def use(
        self, vm_id: str, request: VmRequest, work: Callable[[Running], Awaitable[Outcome]]
    ) -> Outcome:
        """See VmInventory."""
        return await self.inventory.use(vm_id, request, work)

    async def change_spec(
        self, vm_id: str, change: Callable[[VmSpec], VmSpec], *, actor: str
    ) -> Vm:
        """Store a change that the guest has seen already, such as a moved volume; durable on
        return. `change` gets the present spec, and may raise MicaError.
        """
        driver = self.inventory.driver(vm_id)

        before = self.inventory.view(driver)

        def renew(known: VmDefinition) -> VmDefinition:
            spec = change(known.spec)
            return replace(known, spec=spec, revision=known.revision + 1)

        await driver.change(VmRequest.ADJUST, renew)
        self._publish("vm.updated", vm_id, actor, before)
        return self.inventory.view(driver)

    def _publish(self, event_type: str, vm_id: str, actor: str, before: Vm | None = None) -> None:
        self._host.events.publish(
            event_type,
            Subject(kind="vm", id=vm_id),
            actor=actor,
            before=before,
        )


def _check_revision(vm_id: str, present: int, wanted: int) -> None:
    if present != wanted:
        raise MicaError(
            ErrorCode.REVISION_MISMATCH,
            f"VM {vm_id} has revision {present} by now, not {wanted}: read it again.",
        )


def _make_folder(folder: Path, definition: VmDefinition, prepare: Callable[[Path], None]) -> None:
    """A new VM's folder; what an unfinished deletion left there goes first."""
    if exists(folder / definitions.DEFINITION_FILE):
        raise MicaError(
            ErrorCode.ALREADY_EXISTS, f"The datastore holds a VM {definition.id} already."
        )
    definitions.clear(folder)
    make_directory(folder, 0o700)
    try:
        prepare(folder)
        definitions.save(folder, definition)
    except BaseException:
        definitions.delete(folder)
        raise


async def _in_thread(what: str, function: Callable[..., None], *args: object) -> None:
    try:
        await asyncio.to_thread(function, *args)
    except OSError as error:
        raise from_os_error(error, what) from error
