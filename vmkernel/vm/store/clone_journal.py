"""Clones in progress, so that an interrupted one leaves nothing.

<datastore>/vms/.clone-<id>.json   CloneJournal: written before the first disk is copied, removed
                                   after the VM is written down

Each volume that is made carries the journal's token. A journal without its VM is of an interrupted
clone: the volumes with its token are deleted, then the journal. While a datastore is missing, it is
kept, and checked again when one becomes available.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.host.files import (
    RECORD_MAX_BYTES,
    exists,
    names,
    read_limited,
    unlink_durably,
    write_durably,
)
from vmkernel.model import ErrorCode, MicaError, Record, Slug
from vmkernel.storage.ports import Storage
from vmkernel.vm.store import definition as definitions

__all__ = ["CloneJournal", "begin", "end", "sweep"]

_log = logging.getLogger(__name__)

_PREFIX = ".clone-"
_ACTOR = "clone-sweep"


class CloneJournal(Record, frozen=True, kw_only=True):
    """One clone in progress."""

    schema_version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    token: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$(?!\n)")]
    vm: Slug
    volumes: tuple[Slug, ...]


def begin(vms: Path, journal: CloneJournal) -> None:
    """A clone begins (blocking); durable on return."""
    write_durably(_path(vms, journal.vm), msgspec.json.encode(journal))


def end(vms: Path, vm_id: str) -> None:
    """It is complete, or nothing of it is left (blocking); durable on return."""
    unlink_durably(_path(vms, vm_id))


async def sweep(storage: Storage, under_way: Collection[str]) -> None:
    """Take away what clones that were cut off have left on the datastores that are there;
    `under_way` are the tokens of those that this process is at."""
    everything = set(storage.known_datastores()) <= set(storage.datastores())
    for datastore in storage.datastores():
        try:
            vms = storage.vms_folder(datastore)
            journals = await asyncio.to_thread(_read_all, vms)
        except (MicaError, OSError) as error:
            _log.warning("clones on datastore %s can't be looked at: %s", datastore, error)
            continue
        for journal in journals:
            if journal.token in under_way:
                continue
            folder = vms / journal.vm
            try:
                if not await asyncio.to_thread(exists, folder / definitions.DEFINITION_FILE):
                    if not await _undo(storage, journal, everything=everything):
                        continue
                    await asyncio.to_thread(definitions.clear, folder)
                await asyncio.to_thread(end, vms, journal.vm)
            except OSError as error:
                _log.warning("the clone %s can't be swept: %s", journal.vm, error)


async def _undo(storage: Storage, journal: CloneJournal, *, everything: bool) -> bool:
    """Delete what was made; False if more may be found later."""
    done = everything
    left = len(journal.volumes)
    for volume in journal.volumes:
        if storage.clone_of(volume) != journal.token:
            continue
        try:
            await storage.delete_volume(volume, actor=_ACTOR)
        except MicaError as error:
            _log.warning("volume %s of the clone %s stays: %s", volume, journal.vm, error)
            if error.problem.code is not ErrorCode.IN_USE:
                done = False
                continue
        left -= 1
        _log.warning("the clone %s was cut off: volume %s is swept", journal.vm, volume)
    return done or not left


def _read_all(vms: Path) -> list[CloneJournal]:
    found = []
    for name in names(vms):
        if not name.startswith(_PREFIX) or not name.endswith(".json"):
            continue
        path = vms / name
        try:
            journal = decode_json(read_limited(path, RECORD_MAX_BYTES), CloneJournal)
        except (OSError, UndecodableError) as error:
            _log.warning("%s can't be used: %s", path, error)
            continue
        if _path(vms, journal.vm) == path:
            found.append(journal)
    return found


def _path(vms: Path, vm_id: str) -> Path:
    return vms / f"{_PREFIX}{vm_id}.json"
