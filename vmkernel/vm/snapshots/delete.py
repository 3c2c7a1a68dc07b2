"""Deleting a snapshot, inside the owner task of its VM.

  the record says `deleting` -> the memory and the copies of disks go, which frees most -> it is
      forgotten in the disks -> its children, and the VM, stand behind its parent -> its folder goes

Each step can be done twice: a vmkernel that ends in the middle leaves the rest to its successor.
Some steps need a little room before they free any. If one fails, all are tried once more with the
room that the datastores have set aside: a snapshot can be deleted where nothing else can be done.
"""

from __future__ import annotations

import asyncio
import contextlib

from msgspec.structs import replace

from vmkernel.model import MicaError, SnapshotState
from vmkernel.qemu import QmpCommandError
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.snapshots.create import set_current_snapshot
from vmkernel.vm.snapshots.disks import forget_disks
from vmkernel.vm.store.snapshot_records import SnapshotRecord, remove_data

__all__ = ["delete"]


async def delete(machine: Machine, record: SnapshotRecord) -> None:
    """Delete a snapshot; durable on return."""
    try:
        await _delete(machine, record)
    except (MicaError, QmpCommandError, OSError):
        storage = machine.host.storage
        places = {record.spec.datastore, machine.definition.spec.datastore}
        for disk in record.disks:
            with contextlib.suppress(MicaError):
                places.add(storage.volume(disk.volume).datastore)
        async with storage.reserve(places & set(storage.datastores())):
            await _delete(machine, machine.snapshots[record.id])


async def _delete(machine: Machine, record: SnapshotRecord) -> None:
    if record.state is not SnapshotState.DELETING:
        record = replace(record, state=SnapshotState.DELETING)
        await machine.snapshots.write(record)
    await asyncio.to_thread(remove_data, machine.folder, record.id)
    await forget_disks(machine, record)
    for child in list(machine.snapshots.values()):
        if child.parent == record.id:
            await machine.snapshots.write(replace(child, parent=record.parent))
    if machine.definition.snapshot == record.id:
        await set_current_snapshot(machine, record.parent)
    await machine.snapshots.remove(record.id)
