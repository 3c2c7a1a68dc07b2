"""What the previous vmkernel had begun with snapshots: completed or removed before the VM accepts
requests.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from vmkernel.model import ErrorCode, MicaError, SnapshotState
from vmkernel.qemu import QemuError
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.snapshots.delete import delete
from vmkernel.vm.snapshots.revert import finish
from vmkernel.vm.store.snapshot_records import revert_under_way

__all__ = ["recover_snapshots"]

_log = logging.getLogger(__name__)


async def recover_snapshots(machine: Machine) -> None:
    """Load the snapshots of a VM and repair them; MicaError if the VM can't be used."""
    await machine.snapshots.load()
    try:
        begun = await asyncio.to_thread(revert_under_way, machine.folder)
    except (OSError, msgspec.DecodeError) as error:
        raise MicaError(
            ErrorCode.UNAVAILABLE,
            f"A revert was interrupted and its journal can't be read: {error}.",
        ) from error
    if begun is not None:
        record = machine.snapshots.get(begun.snapshot)
        if record is None:
            raise MicaError(
                ErrorCode.UNAVAILABLE,
                f"Reverting to snapshot {begun.snapshot} was interrupted, and the snapshot is"
                " gone.",
            )
        _log.warning("VM %s: going back to snapshot %s is finished", machine.vm_id, record.id)
        await finish(machine, record)
    for record in list(machine.snapshots.values()):
        if record.state is SnapshotState.READY:
            continue
        try:
            await delete(machine, record)
        except (MicaError, QemuError, OSError) as error:
            _log.warning("VM %s: snapshot %s can't go: %s", machine.vm_id, record.id, error)
