"""A snapshot goes, inside the owner task of its VM.

  the record says `deleting` -> it is forgotten in the disks -> its children, and the VM, stand
      behind its parent -> its folder goes

Each step can be done twice: a vmkernel that ends in the middle leaves the rest to its successor.
"""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from vmkernel.model import SnapshotState
from vmkernel.vm.machine import Machine
from vmkernel.vm.snapshots.disks import forget_disks
from vmkernel.vm.snapshots.records import SnapshotRecord, remove, save
from vmkernel.vm.snapshots.taking import stand_behind

__all__ = ["delete"]


async def delete(machine: Machine, record: SnapshotRecord) -> None:
    """See the module; durable on return."""
    if record.state is not SnapshotState.DELETING:
        record = replace(record, state=SnapshotState.DELETING)
        await asyncio.to_thread(save, machine.folder, record)
        machine.snapshots[record.id] = record
    await forget_disks(machine, record)
    for child in list(machine.snapshots.values()):
        if child.parent == record.id:
            moved = replace(child, parent=record.parent)
            await asyncio.to_thread(save, machine.folder, moved)
            machine.snapshots[child.id] = moved
    if machine.definition.snapshot == record.id:
        await stand_behind(machine, record.parent)
    await asyncio.to_thread(remove, machine.folder, record.id)
    machine.snapshots.pop(record.id, None)
