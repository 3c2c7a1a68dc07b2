"""The content of a VM's folder when a vmkernel starts, read at once."""

from __future__ import annotations

from pathlib import Path

from vmkernel.vm.store import saved_memory
from vmkernel.vm.store.definition import has_snapshots
from vmkernel.vm.store.saved_memory import Suspension

__all__ = ["scan"]


def scan(folder: Path, *, active: bool) -> tuple[Suspension | None, bool]:
    """A VM's memory on disk, and whether there are snapshots or a revert that was begun (blocking).

    The rest of an unfinished memory image is removed, unless a QEMU is `active` and may be using
    it.
    """
    found = saved_memory.find(folder)
    if found is None and not active:
        saved_memory.sweep(folder)
    return found, has_snapshots(folder)
