"""A VM is made of another that is off, of a template, or of a snapshot of another.

copied      the disks (sharing their blocks if the file system can), the spec, the machine type,
            the firmware's variables
new         UUID, and with it cloud-init's instance id; MAC addresses, user, vsock context id
left out    snapshots, and the memory of the one that it is made of; the TPM's state, because a TPM
            is an identity: what a guest has sealed to it stays with the original; autostart; that
            it is a template

A linked clone's disks are the differences to those of a template: a template can't be started, so
nothing writes to its disks, and storage refuses everything else that would change them while there
are such clones (Catalogue.refuse_children). `volume flatten` makes a linked disk whole.

The VM's definition is written last: a failure before that, a cancellation or a crash
(clone_journal.py) removes what was copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from vmkernel.aio import run_to_end
from vmkernel.host import from_os_error, naming_datastore
from vmkernel.model import (
    CloneSpec,
    DiskSpec,
    ErrorCode,
    MachineState,
    MicaError,
    Operation,
    Progress,
    SnapshotState,
    Subject,
    VmSpec,
)
from vmkernel.storage.ports import DiskPast
from vmkernel.vm.changes import VmChanges
from vmkernel.vm.context import VmContext
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.nonvolatile.variables import copy_variables
from vmkernel.vm.ports import OperationHandle, Operations
from vmkernel.vm.spec.scope import for_clone
from vmkernel.vm.states import AT_REST, VmRequest
from vmkernel.vm.store.clone_journal import CloneJournal, begin, end
from vmkernel.vm.store.snapshot_records import SnapshotRecord, folder_of

__all__ = ["Clones"]

_log = logging.getLogger(__name__)

_BLOCKS = frozenset(
    {
        VmRequest.START,
        VmRequest.RECONFIGURE,
        VmRequest.ADJUST,
        VmRequest.DELETE,
        VmRequest.SNAPSHOT,
        VmRequest.REVERT,
        VmRequest.HOLD,
    }
)
_BLOCKS_OF_SNAPSHOT = frozenset(
    {VmRequest.DELETE, VmRequest.SNAPSHOT, VmRequest.REVERT, VmRequest.HOLD}
)
"""Its VM may continue to run, start and stop; the content inside its disks stays."""
_SLUG_MAX = 63


class Clones:
    """Makes VMs from others."""

    def __init__(
        self,
        vms: VmInventory,
        changes: VmChanges,
        host: VmContext,
        operations: Operations,
        under_way: set[str],
    ) -> None:
        """`under_way` holds the tokens of the clones that are being made."""
        self._vms = vms
        self._changes = changes
        self._host = host
        self._operations = operations
        self._under_way = under_way

    async def clone(self, vm_id: str, new_id: str, spec: CloneSpec, *, actor: str) -> Operation:
        """Begin to make `new_id` of a VM that is off, or of a snapshot."""
        driver = self._vms.driver(vm_id)
        await driver.ready()
        source = _source(driver, spec)
        if self._vms.known(new_id):
            raise MicaError.field(
                "/id", f"There is a VM {new_id} already.", ErrorCode.ALREADY_EXISTS
            )
        old = source.spec
        disks = tuple(replace(d, volume=_volume_name(new_id, d)) for d in old.disks)
        for disk in disks:
            self._refuse_taken(disk.volume)
        datastore = spec.datastore or old.datastore
        self._host.storage.vms_folder(datastore)
        if spec.linked and spec.datastore is not None:
            self._refuse_apart(old, spec.datastore)
        wanted = replace(for_clone(old, datastore=datastore, name=spec.name), disks=disks)
        held = contextlib.ExitStack()
        blocks = _BLOCKS if spec.snapshot is None else _BLOCKS_OF_SNAPSHOT
        held.enter_context(driver.hold(f"it is being cloned to {new_id}", blocks))
        volumes = tuple(disk.volume for disk in disks)
        journal = CloneJournal(token=secrets.token_hex(8), vm=new_id, volumes=volumes)

        async def work(handle: OperationHandle) -> None:
            shared: dict[str, bool] = {}
            with naming_datastore(datastore):
                async with self._journaled(journal, datastore, actor):
                    await self._copy(source, disks, spec, journal.token, shared, handle)
                    await run_to_end(self._write_down(source, new_id, wanted, actor))
            self._host.events.publish(
                "vm.cloned",
                Subject(kind="vm", id=new_id),
                data={
                    "source": vm_id,
                    "snapshot": spec.snapshot,
                    "linked": spec.linked,
                    "shares_blocks": bool(shared) and all(shared.values()),
                },
                actor=actor,
            )

        return self._operations.begin(
            "vm.clone",
            Subject(kind="vm", id=new_id),
            work,
            actor=actor,
            cancellable=True,
            held=held,
        )

    @contextlib.asynccontextmanager
    async def _journaled(
        self, journal: CloneJournal, datastore: str, actor: str
    ) -> AsyncIterator[None]:
        """Leave nothing of a clone that isn't completed, whatever ends it."""
        vms = self._host.storage.vms_folder(datastore)
        self._under_way.add(journal.token)
        try:
            try:
                await asyncio.to_thread(begin, vms, journal)
            except OSError as error:
                raise from_os_error(error, f"VM {journal.vm}") from error
            try:
                yield
            except BaseException:
                await asyncio.shield(self._discard(journal, vms, actor))
                raise
            try:
                await run_to_end(asyncio.to_thread(end, vms, journal.vm))
            except OSError as error:
                _log.warning("the journal of clone %s stays: %s", journal.vm, error)
        finally:
            self._under_way.discard(journal.token)

    async def _copy(
        self,
        source: _Source,
        disks: Sequence[DiskSpec],
        spec: CloneSpec,
        token: str,
        shared: dict[str, bool],
        handle: OperationHandle,
    ) -> None:
        storage = self._host.storage
        old = source.spec.disks
        sizes = [storage.volume(d.volume, while_busy=True).size_bytes for d in old]
        before = 0
        for disk, target, size in zip(old, disks, sizes, strict=True):

            def told(done: int, total: int, before: int = before, size: int = size) -> None:
                done = before + (size * done // total if total else 0)
                handle.progress(
                    Progress(done=done, total=sum(sizes), unit="bytes", stage="copying disks")
                )

            if spec.linked:
                await storage.link_volume(disk.volume, target.volume, clone=token)
            else:
                shared[target.volume] = await storage.copy_volume(
                    disk.volume,
                    target.volume,
                    datastore=spec.datastore,
                    on_progress=told,
                    clone=token,
                    past=source.past(disk),
                )
            before += size

    async def _write_down(self, source: _Source, new_id: str, wanted: VmSpec, actor: str) -> None:
        def prepare(folder: Path) -> None:
            copy_variables(source.folder, folder)

        await self._changes.create(
            new_id,
            wanted,
            actor=actor,
            machine=MachineState(machine_type=source.machine_type),
            prepare=prepare,
        )

    async def _discard(self, journal: CloneJournal, vms: Path, actor: str) -> None:
        """What can't be deleted now is by the sweep at a later start."""
        storage = self._host.storage
        try:
            for volume in journal.volumes:
                if storage.clone_of(volume) == journal.token:
                    await storage.delete_volume(volume, actor=actor)
            await asyncio.to_thread(end, vms, journal.vm)
        except (MicaError, OSError) as error:
            _log.warning("what was made for clone %s is left over: %s", journal.vm, error)

    def _refuse_apart(self, old: VmSpec, datastore: str) -> None:
        for disk in old.disks:
            if self._host.storage.volume(disk.volume).datastore != datastore:
                raise MicaError.field(
                    "/spec/datastore",
                    "A linked clone must be on the datastore of its template, and volume"
                    f" {disk.volume} isn't on {datastore}: omit the datastore, or make a full"
                    " clone.",
                    ErrorCode.CONFLICT,
                )

    def _refuse_taken(self, volume: str) -> None:
        try:
            self._host.storage.volume(volume, while_busy=True)
        except MicaError as error:
            if error.problem.code is ErrorCode.NOT_FOUND:
                return
        raise MicaError.field(
            "/id", f"There is a volume {volume} already.", ErrorCode.ALREADY_EXISTS
        )


@dataclass(frozen=True)
class _Source:
    """The source of a clone."""

    spec: VmSpec
    machine_type: str
    folder: Path
    """The folder with the firmware's variables."""
    record: SnapshotRecord | None = None

    def past(self, disk: DiskSpec) -> DiskPast | None:
        """Where the content of a disk is, if that isn't its volume's present content."""
        if self.record is None:
            return None
        for kept in self.record.disks:
            if kept.volume == disk.volume:
                if kept.file is None:
                    return DiskPast(tag=self.record.tag)
                return DiskPast(file=self.folder / kept.file)
        return DiskPast()


def _source(driver: VmDriver, spec: CloneSpec) -> _Source:
    """The requested source; MicaError if it can't be cloned now."""
    definition = driver.definition
    if spec.linked and spec.snapshot is not None:
        raise MicaError.field(
            "/spec/linked",
            "A linked clone uses the present disks of a template: make a full clone of the"
            " snapshot, or revert the template to it first.",
        )
    if spec.linked and not definition.spec.template:
        raise MicaError.field(
            "/spec/linked",
            f"VM {driver.vm_id} is not a template, and a linked clone needs disks that nothing"
            " writes to: set `template: true`, or make a full clone.",
            ErrorCode.CONFLICT,
        )
    if spec.snapshot is None:
        if driver.state not in AT_REST:
            raise MicaError(
                ErrorCode.CONFLICT,
                f"VM {driver.vm_id} is {driver.state.value}: shut it down to clone it, or clone a"
                " snapshot of it.",
            )
        return _Source(definition.spec, definition.machine_type, driver.folder)
    record = driver.snapshots.get(spec.snapshot)
    if record is None or record.state is not SnapshotState.READY:
        raise MicaError.field(
            "/spec/snapshot", f"VM {driver.vm_id} has no snapshot {spec.snapshot} that is ready."
        )
    folder = folder_of(driver.folder, record.id)
    return _Source(record.spec, record.machine_type, folder, record)


def _volume_name(new_id: str, disk: DiskSpec) -> str:
    """The name of the copy of a disk."""
    name = f"{new_id}-{disk.key}"
    if len(name) > _SLUG_MAX:
        raise MicaError.field("/id", f"{new_id} is too long: its disks would be named like {name}.")
    return name
