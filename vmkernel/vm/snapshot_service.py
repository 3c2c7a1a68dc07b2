"""Snapshots for requests; the work itself is done inside each VM's owner task."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence

from vmkernel import clock
from vmkernel.model import (
    DiskSpec,
    ErrorCode,
    MicaError,
    Operation,
    Snapshot,
    SnapshotSpec,
    SnapshotState,
    SnapshotStatus,
    Subject,
)
from vmkernel.storage.ports import Storage
from vmkernel.vm.context import VmContext
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.ports import OperationHandle, Operations, Work
from vmkernel.vm.spec_review import SpecReview
from vmkernel.vm.states import ACTIVE, VmRequest
from vmkernel.vm.store.snapshot_records import SNAPSHOTS_MAX, SnapshotRecord

__all__ = ["Snapshots"]


class Snapshots:
    """The snapshots of all VMs."""

    def __init__(
        self,
        vms: VmInventory,
        review: SpecReview,
        host: VmContext,
        operations: Operations,
    ) -> None:
        self._vms = vms
        self._review = review
        self._host = host
        self._operations = operations

    # --- reading ------------------------------------------------------------------------------

    async def list(self, vm_id: str) -> tuple[Snapshot, ...]:
        """The snapshots of a VM by id."""
        driver = await self._driver(vm_id)
        return tuple(_view(driver, driver.snapshots[name]) for name in sorted(driver.snapshots))

    async def get(self, vm_id: str, snapshot: str) -> Snapshot:
        driver = await self._driver(vm_id)
        return _view(driver, _find(driver, snapshot))

    # --- changing -----------------------------------------------------------------------------

    async def create(
        self, vm_id: str, snapshot: str, spec: SnapshotSpec, *, actor: str
    ) -> Operation:
        """Begin to take a snapshot; what can't be is refused at once."""
        driver = await self._driver(vm_id)
        driver.check(VmRequest.SNAPSHOT)
        if snapshot in driver.snapshots:
            raise MicaError(
                ErrorCode.ALREADY_EXISTS, f"There is a snapshot {snapshot} of VM {vm_id} already."
            )
        if len(driver.snapshots) >= SNAPSHOTS_MAX:
            raise MicaError(
                ErrorCode.CONFLICT, f"VM {vm_id} has {SNAPSHOTS_MAX} snapshots: delete one first."
            )
        if spec.memory and driver.state not in ACTIVE:
            raise MicaError.field(
                "/spec/memory",
                f"VM {vm_id} is {driver.state.value} and has no memory to save.",
                ErrorCode.CONFLICT,
            )
        _refuse_linked(self._host.storage, driver.definition.spec.disks)
        _describe(self._host.storage, driver, spec, snapshot)

        async def work(handle: OperationHandle) -> None:
            from vmkernel.vm.snapshots.create import take

            async def inside(machine: Machine) -> None:
                if snapshot in machine.snapshots:
                    raise MicaError(
                        ErrorCode.ALREADY_EXISTS, f"There is a snapshot {snapshot} already."
                    )
                if spec.memory and not machine.connected:
                    raise MicaError(ErrorCode.CONFLICT, f"VM {vm_id} does not run any more.")
                record = _describe(self._host.storage, driver, spec, snapshot)
                with _at_disks(machine):
                    await take(machine, record, handle.progress)

            await _inside(driver, VmRequest.SNAPSHOT, inside)
            self._publish("created", vm_id, snapshot, actor)

        return self._begin("snapshot.create", vm_id, work, actor, cancellable=spec.memory)

    async def revert(
        self, vm_id: str, snapshot: str, *, start: bool | None, actor: str
    ) -> Operation:
        """Begin to revert. `start` says if the VM runs afterwards; if None, it runs if it was
        running before, or if the snapshot has memory.
        """
        driver = await self._driver(vm_id)
        driver.check(VmRequest.REVERT)
        record = _find(driver, snapshot)
        if record.state is not SnapshotState.READY:
            raise MicaError(
                ErrorCode.CONFLICT, f"Snapshot {snapshot} of VM {vm_id} is {record.state.value}."
            )
        _refuse_linked(self._host.storage, driver.definition.spec.disks, record)
        self._check_spec(driver, record)
        ran = driver.state in ACTIVE
        goes_on = start if start is not None else ran or record.memory

        async def work(_: OperationHandle) -> None:
            from vmkernel.vm.snapshots.revert import revert, spec_after

            async def inside(machine: Machine) -> None:
                found = _find(driver, snapshot)
                self._check_spec(driver, found)
                with (
                    self._vms.reservations.change(
                        vm_id, spec_after(machine.definition.spec, found)
                    ),
                    _at_disks(machine),
                ):
                    await revert(machine, found)

            await _inside(driver, VmRequest.REVERT, inside)
            self._publish("reverted", vm_id, snapshot, actor)
            if goes_on:
                await driver.ask(VmRequest.START)

        return self._begin("snapshot.revert", vm_id, work, actor)

    async def delete(self, vm_id: str, snapshot: str, *, actor: str) -> Operation:
        """Begin to delete one; its children become its parent's."""
        driver = await self._driver(vm_id)
        driver.check(VmRequest.SNAPSHOT)
        if snapshot in driver.broken_snapshots:
            return self._delete_broken(driver, snapshot, actor)
        record = _find(driver, snapshot)
        _refuse_linked(self._host.storage, driver.definition.spec.disks, record)

        async def work(_: OperationHandle) -> None:
            from vmkernel.vm.snapshots.delete import delete

            async def inside(machine: Machine) -> None:
                found = _find(driver, snapshot)
                with _at_disks(machine):
                    await delete(machine, found)

            await _inside(driver, VmRequest.SNAPSHOT, inside)
            self._publish("deleted", vm_id, snapshot, actor)

        return self._begin("snapshot.delete", vm_id, work, actor)

    def _delete_broken(self, driver: VmDriver, snapshot: str, actor: str) -> Operation:
        """Delete what is left of a snapshot whose description is lost: its memory and copies of
        disks; snapshots inside disks are found by a check of each volume.
        """

        async def work(_: OperationHandle) -> None:
            async def inside(machine: Machine) -> None:
                await machine.snapshots.remove(snapshot)

            await _inside(driver, VmRequest.SNAPSHOT, inside)
            self._publish("deleted", driver.vm_id, snapshot, actor)

        return self._begin("snapshot.delete", driver.vm_id, work, actor)

    # --- parts --------------------------------------------------------------------------------

    async def _driver(self, vm_id: str) -> VmDriver:
        driver = self._vms.driver(vm_id)
        await driver.ready()
        return driver

    def _begin(
        self, kind: str, vm_id: str, work: Work, actor: str, *, cancellable: bool = False
    ) -> Operation:
        return self._operations.begin(
            kind, Subject(kind="vm", id=vm_id), work, actor=actor, cancellable=cancellable
        )

    def _publish(self, what: str, vm_id: str, snapshot: str, actor: str) -> None:
        self._host.events.publish(
            f"snapshot.{what}",
            Subject(kind="vm", id=vm_id),
            data={"snapshot": snapshot},
            actor=actor,
        )

    def _check_spec(self, driver: VmDriver, record: SnapshotRecord) -> None:
        """The spec of then must be possible now."""
        from vmkernel.vm.snapshots.revert import spec_after

        spec = spec_after(driver.definition.spec, record)
        self._review.check_references(driver.vm_id, spec)
        taken = self._vms.reservations.macs(driver.vm_id)
        for nic in spec.nics:
            if nic.mac in taken:
                raise MicaError(
                    ErrorCode.IN_USE,
                    f"The snapshot's MAC address {nic.mac} belongs to another VM now.",
                )


@contextlib.contextmanager
def _at_disks(machine: Machine) -> Iterator[None]:
    """Keep long work of others off the VM and its volumes, or be refused by it."""
    machine.locks.check(VmRequest.HOLD)
    _refuse_linked(machine.host.storage, machine.definition.spec.disks)
    with machine.disks_held():
        yield


async def _inside(
    driver: VmDriver, request: VmRequest, work: Callable[[Machine], Awaitable[None]]
) -> None:
    """Work inside the owner task. If we are cancelled, writing the memory is aborted, and the
    clean-up awaited; anything else is completed.
    """
    asked = asyncio.ensure_future(driver.inside(request, work))
    try:
        await asyncio.shield(asked)
    except asyncio.CancelledError:
        driver.interrupt()
        await asyncio.wait((asked,))
        if not asked.cancelled() and asked.exception() is None:
            return
        raise


def _refuse_linked(
    storage: Storage, disks: Sequence[DiskSpec], record: SnapshotRecord | None = None
) -> None:
    """Raise `in-use` if one of the disks has linked clones: taking or deleting a snapshot changes
    the tables of its file, and a revert its data.
    """
    kept = record.disks if record is not None else ()
    for volume in dict.fromkeys((*(d.volume for d in disks), *(d.volume for d in kept))):
        storage.refuse_children(volume)


def _find(driver: VmDriver, snapshot: str) -> SnapshotRecord:
    record = driver.snapshots.get(snapshot)
    if record is None:
        raise MicaError(
            ErrorCode.NOT_FOUND, f"There is no snapshot {snapshot} of VM {driver.vm_id}."
        )
    return record


def _describe(
    storage: Storage, driver: VmDriver, spec: SnapshotSpec, snapshot: str
) -> SnapshotRecord:
    """The record of a snapshot to be taken; MicaError if a disk doesn't support it."""
    from vmkernel.vm.snapshots.disks import describe_disks

    definition = driver.definition
    return SnapshotRecord(
        id=snapshot,
        tag=f"mica-{secrets.token_hex(8)}",
        created_at=clock.now(),
        description=spec.description,
        parent=definition.snapshot,
        state=SnapshotState.CREATING,
        memory=spec.memory,
        quiesce=spec.quiesce,
        best_effort=spec.best_effort,
        machine_type=definition.machine_type,
        spec=definition.spec,
        disks=describe_disks(storage, definition.spec),
    )


def _view(driver: VmDriver, record: SnapshotRecord) -> Snapshot:
    return Snapshot(
        id=record.id,
        vm=driver.vm_id,
        created_at=record.created_at,
        spec=SnapshotSpec(
            description=record.description,
            memory=record.memory,
            quiesce=record.quiesce,
            best_effort=record.best_effort,
        ),
        status=SnapshotStatus(
            state=record.state,
            parent=record.parent,
            current=driver.definition.snapshot == record.id,
            disks=tuple(disk.volume for disk in record.disks),
            machine_type=record.machine_type,
            memory_bytes=record.memory_bytes,
            quiesced=record.quiesced,
            reason=record.reason,
        ),
    )
