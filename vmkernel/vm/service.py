"""The virtual machines of this host: which there are, and the way to each one's driver.

The service keeps the list and what must be unique among all VMs (ids, MAC addresses, volumes,
users); everything about one VM is its driver's.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from vmkernel import clock
from vmkernel.devices import Family
from vmkernel.host import from_os_error
from vmkernel.host.files import make_directory
from vmkernel.model import (
    SLUG_PATTERN,
    ConsoleKind,
    DisplayModel,
    ErrorCode,
    Finding,
    MicaError,
    Operation,
    Progress,
    Severity,
    Subject,
    Vm,
    VmAction,
    VmSpec,
    VmState,
    VmStatus,
)
from vmkernel.vm import definition as definitions
from vmkernel.vm.definition import DefinitionError, VmDefinition
from vmkernel.vm.driver import VmDriver
from vmkernel.vm.ports import OperationHandle, Operations
from vmkernel.vm.spec_check import check_references, check_structure, family_of, with_macs
from vmkernel.vm.states import VmRequest, request_of
from vmkernel.vm.surroundings import Surroundings

__all__ = ["VmService"]

_log = logging.getLogger(__name__)

_SLUG = re.compile(SLUG_PATTERN)

_SETTLED_S = 20.0

_INVISIBLE = ("name", "description", "labels")
"""What the guest can't see of its spec."""


@dataclass(frozen=True)
class _Unusable:
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


class VmService:
    """See VmDirectory."""

    def __init__(self, host: Surroundings, operations: Operations) -> None:
        self._host = host
        self._operations = operations
        self._drivers: dict[str, _Running] = {}
        self._unusable: dict[str, _Unusable] = {}
        self._clashes: dict[tuple[str, str], Finding] = {}
        self._claimed: dict[str, VmSpec] = {}
        """Specs of changes under way: what they name is taken already."""
        self._loading: set[asyncio.Task[None]] = set()
        self._write_lock = asyncio.Lock()

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """See VmDirectory."""
        self._host.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._host.storage.on_datastore_change(self._datastore_changed)
        self._background(self._look_around(), "vm-surroundings")
        for datastore in self._host.storage.datastores():
            await self._load(datastore)

    async def stop(self) -> None:
        """See VmDirectory."""
        tasks = [running.task for running in self._drivers.values()]
        tasks += list(self._loading)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drivers.clear()
        await self._host.launcher.close()

    def findings(self) -> Iterator[Finding]:
        """What is wrong with VM folders."""
        yield from self._clashes.values()
        for vm_id, broken in sorted(self._unusable.items()):
            yield Finding(
                code="vm-unusable",
                severity=Severity.WARNING,
                message=f"VM {vm_id} is unusable: {broken.reason}",
                subject=vm_id,
            )

    def accelerator(self) -> str | None:
        """What a VM started now runs with, where that has been tried already."""
        probe = self._host.kvm.known
        return None if probe is None else ("kvm" if probe.usable else "tcg")

    def accelerator_reason(self) -> str | None:
        """Why it isn't KVM, where it isn't."""
        probe = self._host.kvm.known
        return None if probe is None else probe.reason

    # --- reading ------------------------------------------------------------------------------

    def list_vms(self) -> tuple[Vm, ...]:
        """See VmDirectory."""
        self._forget_gone()
        views = {vm_id: running.driver.view() for vm_id, running in self._drivers.items()}
        views |= {vm_id: broken.view() for vm_id, broken in self._unusable.items()}
        return tuple(views[vm_id] for vm_id in sorted(views))

    def get(self, vm_id: str) -> Vm:
        """See VmDirectory."""
        self._forget_gone()
        if vm_id in self._unusable:
            return self._unusable[vm_id].view()
        return self._driver(vm_id).view()

    def vm_of_volume(self, volume: str) -> str | None:
        """See VmUsers."""
        return next(
            (vm for vm, spec in self._specs() if any(d.volume == volume for d in spec.disks)), None
        )

    def volume_is_open(self, volume: str) -> bool:
        """See VmUsers."""
        owner = self.vm_of_volume(volume)
        return owner in self._drivers and self._drivers[owner].driver.active

    def vms_of_image(self, image: str) -> tuple[str, ...]:
        """See VmUsers."""
        return tuple(sorted({vm for vm, spec in self._specs() if image in _images(spec)}))

    def vms_on_datastore(self, datastore: str, *, active: bool = False) -> tuple[str, ...]:
        """See VmUsers."""
        found = set()
        for vm_id, spec in self._specs():
            running = self._drivers.get(vm_id)
            if active and not (running and running.driver.active):
                continue
            if datastore in self._datastores_of(spec):
                found.add(vm_id)
        return tuple(sorted(found))

    # --- changing -----------------------------------------------------------------------------

    async def create(self, vm_id: str, spec: VmSpec, *, actor: str) -> Vm:
        """See VmDirectory."""
        self._forget_gone()
        if vm_id in self._drivers or vm_id in self._unusable or vm_id in self._claimed:
            raise MicaError(ErrorCode.ALREADY_EXISTS, f"There is a VM {vm_id} already.")
        family = family_of(spec)
        check_structure(spec, family)
        self._check_references(vm_id, spec)
        spec = with_macs(spec, taken=self._macs(vm_id))
        self._claimed[vm_id] = spec
        try:
            program = await self._host.program()
            async with self._write_lock:
                definition = VmDefinition(
                    id=vm_id,
                    uuid=str(uuid.uuid4()),
                    revision=1,
                    created_at=clock.now(),
                    machine_type=program.machine_type(family),
                    uid=self._free_uid(),
                    spec=spec,
                )
                folder = self._host.storage.vms_folder(spec.datastore) / vm_id
                await _in_thread(f"VM {vm_id}", _make_folder, folder, definition)
            driver = self._adopt(definition, folder)
        finally:
            del self._claimed[vm_id]
        await driver.ready()
        self._publish("vm.created", vm_id, actor)
        return driver.view()

    async def update(self, vm_id: str, spec: VmSpec, revision: int, *, actor: str) -> Vm:
        """See VmDirectory."""
        driver = self._driver(vm_id)
        old = driver.definition
        _check_revision(vm_id, old.revision, revision)
        if spec.datastore != old.spec.datastore:
            raise MicaError.field("/spec/datastore", f"VM {vm_id} stays on its datastore.")
        spec = with_macs(spec, taken=self._macs(vm_id), previous=old.spec)
        if spec == old.spec:
            return driver.view()
        invisible = {name: getattr(old.spec, name) for name in _INVISIBLE}
        request = (
            VmRequest.RENAME if replace(spec, **invisible) == old.spec else VmRequest.RECONFIGURE
        )
        driver.check(request)
        check_structure(spec, Family.of(old.machine_type))
        self._check_references(vm_id, spec)
        if vm_id in self._claimed:
            raise MicaError(
                ErrorCode.CONFLICT, f"VM {vm_id} is being changed already; ask again in a moment."
            )
        self._claimed[vm_id] = spec
        try:
            await driver.change(
                request, lambda known: replace(known, spec=spec, revision=known.revision + 1)
            )
        finally:
            del self._claimed[vm_id]
        self._publish("vm.updated", vm_id, actor)
        return driver.view()

    async def delete(
        self,
        vm_id: str,
        *,
        revision: int | None = None,
        with_volumes: bool = False,
        actor: str,
    ) -> None:
        """See VmDirectory."""
        self._forget_gone()
        volumes: tuple[str, ...] = ()
        broken = self._unusable.get(vm_id)
        if broken is not None:
            if revision is not None:
                _check_revision(vm_id, broken.view().revision, revision)
            self._host.storage.vms_folder(broken.datastore)
            await _in_thread(f"VM {vm_id}", definitions.delete, broken.folder)
            self._unusable.pop(vm_id, None)
        else:
            driver = self._driver(vm_id)
            if revision is not None:
                _check_revision(vm_id, driver.definition.revision, revision)
            driver.check(VmRequest.DELETE)
            await driver.ask(VmRequest.DELETE)
            running = self._drivers.pop(vm_id, None)
            if running is not None:
                await asyncio.wait((running.task,))
            if with_volumes:
                volumes = tuple(disk.volume for disk in driver.definition.spec.disks)
        self._publish("vm.deleted", vm_id, actor)
        for volume in volumes:
            await self._host.storage.delete_volume(volume, actor=actor)

    async def act(self, vm_id: str, action: VmAction, *, timeout_s: float, actor: str) -> Operation:
        """See VmDirectory."""
        driver = self._driver(vm_id)
        await driver.ready()
        request = request_of(action)
        driver.check(request)

        async def work(_: OperationHandle) -> None:
            if request is VmRequest.START:
                self._check_references(vm_id, driver.definition.spec)
            await driver.ask(request, timeout_s=timeout_s)

        return self._operations.begin(
            f"vm.{action.value}",
            Subject(kind="vm", id=vm_id),
            work,
            actor=actor,
            cancellable=action is VmAction.SHUTDOWN,
        )

    async def open_console(self, vm_id: str, kind: ConsoleKind) -> socket.socket:
        """See VmDirectory."""
        driver = self._driver(vm_id)
        await driver.ready()
        driver.check(VmRequest.CONSOLE)
        if kind is ConsoleKind.SERIAL:
            return driver.console.watch()
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
        """See VmDirectory."""
        drivers = [r.driver for r in self._drivers.values() if r.driver.active]
        left = {driver.vm_id for driver in drivers}
        total = len(left)

        async def end(driver: VmDriver) -> None:
            try:
                await driver.ready()
                if driver.state in (VmState.RUNNING, VmState.STOPPING):
                    await driver.ask(VmRequest.SHUTDOWN, timeout_s=timeout_s)
            except MicaError as error:
                _log.warning("%s", error)
            if not driver.active:
                left.discard(driver.vm_id)
            if on_progress is not None:
                on_progress(
                    Progress(done=total - len(left), total=total, unit="vms", stage="guests")
                )

        async with asyncio.TaskGroup() as group:
            for driver in drivers:
                group.create_task(end(driver))
        remaining = tuple(sorted(left))
        if force:
            results = await asyncio.gather(
                *(d.ask(VmRequest.POWER_OFF) for d in drivers if d.vm_id in left),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, BaseException):
                    _log.warning("%s", result)
        return remaining

    # --- datastores ---------------------------------------------------------------------------

    def _datastore_changed(self, datastore: str, available: bool) -> None:
        if available:
            self._background(self._load(datastore), f"vms-of-{datastore}")
            return
        for vm_id, running in list(self._drivers.items()):
            driver = running.driver
            if driver.definition.spec.datastore == datastore and not driver.active:
                del self._drivers[vm_id]
                running.task.cancel()
                self._unusable[vm_id] = _Unusable(
                    datastore,
                    driver.folder,
                    f"Its datastore {datastore} is not there.",
                    driver.definition,
                )

    async def _look_around(self) -> None:
        """Find out, before anybody asks, what the first start would have to wait for.

        Asking QEMU costs a second on a slow machine, which the host's own start needs more.
        """
        await self._host.kvm()
        await asyncio.sleep(_SETTLED_S)
        try:
            await self._host.program()
        except MicaError as error:
            _log.warning("no VM can be started: %s", error)

    def _background(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._loading.add(task)
        task.add_done_callback(self._loaded)

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self._loading.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s failed", task.get_name(), exc_info=task.exception())

    async def _load(self, datastore: str) -> None:
        """Take up the VMs of a datastore."""
        try:
            root = self._host.storage.vms_folder(datastore)
            found = await asyncio.to_thread(_read_folders, root)
        except (MicaError, OSError) as error:
            _log.warning("the VMs of datastore %s can't be read: %s", datastore, error)
            return
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
                self._unusable[vm_id] = _Unusable(
                    datastore, folder, f"Its definition can't be used: {result}."
                )
                continue
            starting.append(self._adopt(self._fitted(result, datastore), folder))
        for driver in starting:
            await driver.ready()

    def _fitted(self, definition: VmDefinition, datastore: str) -> VmDefinition:
        """A definition as it is used here: a datastore may carry another name on this host, and
        a user number may be taken."""
        spec = definition.spec
        if spec.datastore != datastore:
            spec = replace(spec, datastore=datastore)
        uid = definition.uid
        if uid in self._uids() or not definitions.FIRST_UID <= uid <= definitions.LAST_UID:
            uid = self._free_uid()
        return replace(definition, spec=spec, uid=uid)

    def _note_clash(self, datastore: str, vm_id: str, owner: str) -> None:
        self._clashes[(datastore, vm_id)] = Finding(
            code="vm-id-clash",
            severity=Severity.WARNING,
            message=f"Datastore {datastore} holds a VM {vm_id} as datastore {owner} does:"
            " only the latter is shown.",
            subject=vm_id,
        )

    def _forget_gone(self) -> None:
        """Drop the VMs of datastores that this host no longer knows."""
        for vm_id, broken in list(self._unusable.items()):
            try:
                self._host.storage.vms_folder(broken.datastore)
            except MicaError as error:
                if error.problem.code is ErrorCode.NOT_FOUND:
                    del self._unusable[vm_id]

    # --- what must be unique ------------------------------------------------------------------

    def _specs(self) -> list[tuple[str, VmSpec]]:
        """Every spec that claims something, those of changes under way included."""
        specs = [(vm_id, r.driver.definition.spec) for vm_id, r in self._drivers.items()]
        specs += [(vm, b.definition.spec) for vm, b in self._unusable.items() if b.definition]
        return specs + list(self._claimed.items())

    def _macs(self, except_vm: str) -> set[str]:
        return {
            nic.mac
            for vm_id, spec in self._specs()
            if vm_id != except_vm
            for nic in spec.nics
            if nic.mac is not None
        }

    def _uids(self) -> set[int]:
        used = {r.driver.definition.uid for r in self._drivers.values()}
        return used | {b.definition.uid for b in self._unusable.values() if b.definition}

    def _free_uid(self) -> int:
        used = self._uids()
        for uid in range(definitions.FIRST_UID, definitions.LAST_UID + 1):
            if uid not in used:
                return uid
        raise MicaError(ErrorCode.INSUFFICIENT_RESOURCES, "No user number is left for another VM.")

    def _datastores_of(self, spec: VmSpec) -> set[str]:
        storage = self._host.storage
        found = {spec.datastore}
        for find, names in (
            (storage.volume, [d.volume for d in spec.disks]),
            (storage.image, sorted(_images(spec))),
        ):
            for name in names:
                try:
                    found.add(find(name).datastore)
                except MicaError:
                    continue
        return found

    def _check_references(self, vm_id: str, spec: VmSpec) -> None:
        check_references(
            vm_id,
            spec,
            storage=self._host.storage,
            vm_of_volume=lambda volume: next(
                (
                    vm
                    for vm, other in self._specs()
                    if vm != vm_id and any(d.volume == volume for d in other.disks)
                ),
                None,
            ),
            port_groups=self._host.network.port_groups(),
        )

    # --- small things -------------------------------------------------------------------------

    def _driver(self, vm_id: str) -> VmDriver:
        running = self._drivers.get(vm_id)
        if running is not None:
            return running.driver
        broken = self._unusable.get(vm_id)
        if broken is not None:
            raise MicaError(ErrorCode.CONFLICT, f"VM {vm_id} is unusable: {broken.reason}")
        raise MicaError(ErrorCode.NOT_FOUND, f"There is no VM {vm_id}.")

    def _adopt(self, definition: VmDefinition, folder: Path) -> VmDriver:
        driver = VmDriver(self._host, definition, folder)
        task = asyncio.create_task(driver.run(), name=f"vm-{definition.id}")
        task.add_done_callback(self._driver_ended)
        self._drivers[definition.id] = _Running(driver, task)
        return driver

    def _driver_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.critical("%s failed", task.get_name(), exc_info=task.exception())

    def _publish(self, event_type: str, vm_id: str, actor: str) -> None:
        self._host.events.publish(event_type, Subject(kind="vm", id=vm_id), actor=actor)


def _images(spec: VmSpec) -> set[str]:
    named = {c.image for c in spec.cdroms}
    if spec.boot.kernel is not None:
        named |= {spec.boot.kernel.kernel, spec.boot.kernel.initrd}
    return {name for name in named if name is not None}


def _check_revision(vm_id: str, present: int, wanted: int) -> None:
    if present != wanted:
        raise MicaError(
            ErrorCode.REVISION_MISMATCH,
            f"VM {vm_id} has revision {present} by now, not {wanted}: read it again.",
        )


def _make_folder(folder: Path, definition: VmDefinition) -> None:
    """A new VM's folder; what an unfinished deletion left there goes first."""
    if (folder / definitions.DEFINITION_FILE).exists():
        raise MicaError(
            ErrorCode.ALREADY_EXISTS, f"The datastore holds a VM {definition.id} already."
        )
    definitions.clear(folder)
    make_directory(folder, 0o700)
    definitions.save(folder, definition)


def _read_folders(root: Path) -> list[tuple[Path, VmDefinition | DefinitionError]]:
    """Every VM folder with what is in it; a folder without `vm.json` is no VM."""
    found: list[tuple[Path, VmDefinition | DefinitionError]] = []
    for folder in sorted(root.iterdir()):
        if not _SLUG.match(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        if not (folder / definitions.DEFINITION_FILE).exists():
            continue
        try:
            found.append((folder, definitions.load(folder)))
        except DefinitionError as error:
            found.append((folder, error))
    return found


async def _in_thread(what: str, function: Callable[..., None], *args: object) -> None:
    try:
        await asyncio.to_thread(function, *args)
    except OSError as error:
        raise from_os_error(error, what) from error
