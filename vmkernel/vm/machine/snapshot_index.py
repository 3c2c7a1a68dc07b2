"""The snapshots in a VM's folder, as its owner task knows them: each change is written before it
counts here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from vmkernel.model import SnapshotState
from vmkernel.vm.store.snapshot_records import SnapshotRecord, load_all, remove, save

__all__ = ["SnapshotIndex"]


class SnapshotIndex(Mapping[str, SnapshotRecord]):
    """By id. Only the owner task changes it; anyone may read."""

    def __init__(self, vm_folder: Path) -> None:
        self._folder = vm_folder
        self._records: dict[str, SnapshotRecord] = {}
        self._broken: dict[str, str] = {}

    def __getitem__(self, snapshot: str) -> SnapshotRecord:
        return self._records[snapshot]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def broken(self) -> Mapping[str, str]:
        """Why others in the folder can't be used."""
        return self._broken

    async def load(self) -> None:
        """Find out what the folder holds."""
        self._records, self._broken = await asyncio.to_thread(load_all, self._folder)

    async def write(self, record: SnapshotRecord) -> None:
        """Take a new record, or a changed one; durable on return."""
        await asyncio.to_thread(save, self._folder, record)
        self._records[record.id] = record

    async def give_up(self, record: SnapshotRecord) -> None:
        """One can't be removed now: the next start of the vmkernel does it, even if what becomes
        of it can't be written."""
        failed = replace(record, state=SnapshotState.DELETING)
        self._records[record.id] = failed
        with contextlib.suppress(OSError):
            await asyncio.to_thread(save, self._folder, failed)

    async def remove(self, snapshot: str) -> None:
        """Remove one with its folder, even if its record is broken; durable on return."""
        await asyncio.to_thread(remove, self._folder, snapshot)
        self._records.pop(snapshot, None)
        self._broken.pop(snapshot, None)
