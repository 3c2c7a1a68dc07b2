"""Making, changing and deleting VMs as requests ask for it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from vmkernel import clock, dry_run
from vmkernel.devices import Family
from vmkernel.host import from_os_error, naming_datastore
from vmkernel.host.files import exists, make_directory
from vmkernel.model import (
    ErrorCode,
    MachineState,
    MicaError,
    Subject,
    Vm,
    VmSpec,
    VmState,
    VmStatus,
)
from vmkernel.vm.context import VmContext
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.spec.defaults import with_drivers
from vmkernel.vm.spec.scope import is_host_only
from vmkernel.vm.spec.validation import check_structure, family_of
from vmkernel.vm.spec_review import SpecReview
from vmkernel.vm.states import WITH_QEMU, VmRequest
from vmkernel.vm.store import definition as definitions
from vmkernel.vm.store.definition import VmDefinition

__all__ = ["VmChanges"]


class VmChanges:
    """For all VMs of a host."""

    def __init__(self, host: VmContext, inventory: VmInventory, review: SpecReview) -> None:
        self._host = host
        self._inventory = inventory
        self._review = review
        self._write_lock = asyncio.Lock()

    async def create(
        self,
        vm_id: str,
        spec: VmSpec,
        *,
        actor: str,
        machine: MachineState | None = None,
        prepare: Callable[[Path], None] = lambda _: None,
    ) -> Vm:
        """Make a VM, or a saved one again; durable on return. `prepare` fills the folder of a clone
        (it may block) before there is such a VM."""
        from vmkernel.vm.nonvolatile.machine_state import check_state, write_state

        self._inventory.forget_gone()
        if self._inventory.known(vm_id):
            raise MicaError(ErrorCode.ALREADY_EXISTS, f"There is a VM {vm_id} already.")
        family = family_of(spec) if machine is None else Family.of(machine.machine_type)
        spec = self._review.complete(vm_id, with_drivers(spec, self._host.storage.image))
        check_structure(spec, family)
        self._review.check_references(vm_id, spec)
        await self._host.check_cpu_model(spec.cpus.model)
        if machine is not None:
            await asyncio.to_thread(check_state, self._host, machine)
        with self._inventory.reservations.change(vm_id, spec):
            self._review.check_references(vm_id, spec)  # something may have gone meanwhile
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
                    uid=self._inventory.free_uid(),
                    spec=spec,
                )
                folder = self._host.storage.vms_folder(spec.datastore) / vm_id
                _end_dry_run(
                    Vm(
                        id=vm_id,
                        revision=1,
                        created_at=definition.created_at,
                        spec=spec,
                        status=VmStatus(
                            state=VmState.STOPPED,
                            uuid=definition.uuid,
                            machine_type=definition.machine_type,
                        ),
                    )
                )

                def fill(folder: Path) -> None:
                    prepare(folder)
                    if machine is not None:
                        write_state(folder, machine)

                with naming_datastore(spec.datastore):
                    await _in_thread(f"VM {vm_id}", _make_folder, folder, definition, fill)
            driver = self._inventory.adopt(definition, folder)
            await self._host.storage.keep_volumes(disk.volume for disk in spec.disks)
        await driver.ready()
        self._publish("vm.created", vm_id, actor)
        return self._inventory.view(driver)

    def _uuid(self, machine: MachineState | None) -> str:
        if machine is None or machine.uuid is None:
            return str(uuid.uuid4())
        for driver in self._inventory.drivers():
            if driver.definition.uuid == machine.uuid:
                raise MicaError.field(
                    "/machine/uuid",
                    f"VM {driver.vm_id} has this UUID: delete it first, or leave the UUID out for"
                    " a new one.",
                    ErrorCode.CONFLICT,
                )
        return machine.uuid

    async def update(self, vm_id: str, spec: VmSpec, revision: int, *, actor: str) -> Vm:
        """Replace the spec if `revision` is still the present one; durable on return."""
        driver = self._inventory.driver(vm_id)
        old = driver.definition
        before = self._inventory.view(driver)
        _check_revision(vm_id, old.revision, revision)
        if spec.datastore != old.spec.datastore:
            raise MicaError.field("/spec/datastore", f"VM {vm_id} stays on its datastore.")
        spec = self._review.complete(vm_id, spec, old.spec)
        if spec == old.spec:
            return self._inventory.view(driver)
        host_only = is_host_only(old.spec, spec)
        request = VmRequest.RENAME if host_only else VmRequest.RECONFIGURE
        plugs = request is VmRequest.RECONFIGURE and driver.state in WITH_QEMU
        driver.check(VmRequest.OPERATE if plugs else request)
        if old.spec.template and not spec.template:
            for disk in old.spec.disks:
                self._host.storage.refuse_children(disk.volume)
        check_structure(spec, Family.of(old.machine_type))
        self._review.check_references(vm_id, spec)
        if spec.cpus.model != old.spec.cpus.model:
            await self._host.check_cpu_model(spec.cpus.model)

        def renew(known: VmDefinition, spec: VmSpec = spec) -> VmDefinition:
            _check_revision(vm_id, known.revision, revision)
            return replace(known, spec=spec, revision=revision + 1)

        def checked(planned: VmSpec = spec) -> None:
            view = self._inventory.view(driver)
            _end_dry_run(replace(view, spec=planned, revision=revision + 1))

        with self._inventory.reservations.change(vm_id, spec):
            self._review.check_references(vm_id, spec)  # something may have gone meanwhile
            if not plugs:
                checked()
            try:
                if plugs:
                    from vmkernel.vm.hotplug.apply import change_running

                    await change_running(self._host, driver, spec, renew, checked)
                else:
                    await driver.change(request, renew)
            finally:
                stored = driver.definition.spec.disks
                await self._host.storage.keep_volumes(disk.volume for disk in stored)
        self._publish("vm.updated", vm_id, actor, before)
        return self._inventory.view(driver)

    async def delete(
        self,
        vm_id: str,
        *,
        revision: int | None = None,
        with_volumes: bool = False,
        actor: str,
    ) -> None:
        """Delete a VM that is off."""
        self._inventory.forget_gone()
        volumes: tuple[str, ...] = ()
        broken = self._inventory.unusable(vm_id)
        before = self._inventory.get(vm_id)
        if broken is not None:
            if revision is not None:
                _check_revision(vm_id, broken.view().revision, revision)
            self._host.storage.vms_folder(broken.datastore)
            dry_run.ending(None)
            await _in_thread(f"VM {vm_id}", definitions.delete, broken.folder)
            await self._inventory.forget(vm_id)
        else:
            driver = self._inventory.driver(vm_id)
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
            dry_run.ending(None)
            await self._forget_elsewhere(driver)
            await driver.ask(VmRequest.DELETE)
            await self._inventory.forget(vm_id)
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

    def _publish(self, event_type: str, vm_id: str, actor: str, before: Vm | None = None) -> None:
        self._host.events.publish(
            event_type,
            Subject(kind="vm", id=vm_id),
            actor=actor,
            before=before,
        )


def _end_dry_run(planned: Vm) -> None:
    """End a dry run with the VM as it would be, as operators see it: without its secrets."""
    if dry_run.dry():
        if planned.spec.cloud_init is not None:
            from vmkernel.vm.spec.cloud_init.secrets import concealed

            planned = concealed(planned, user_data=False)
        dry_run.ending(planned)


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
