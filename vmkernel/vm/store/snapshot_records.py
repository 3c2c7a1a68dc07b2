"""Snapshots in a VM's folder.

vms/<id>/snapshots/<snapshot>/snapshot.json   SnapshotRecord; written first, removed last
                              disk0.raw       a raw volume's content (shares its blocks)
                              nvram*.fd tpm.state  as they were
                              suspend.*       the memory, as of a suspended VM
         revert.json                          a revert under way: it is finished at the next start

The state in the record is the truth: `creating` is swept, `deleting` is finished, at the next start
of the vmkernel.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.host.files import (
    RECORD_MAX_BYTES,
    fsync_directory,
    is_folder,
    make_directory,
    names,
    read_limited,
    remove_tree,
    unlink_durably,
    write_durably,
)
from vmkernel.model import Record, Slug, SnapshotState, Timestamp, VmSpec, VolumeFormat

__all__ = [
    "DiskRecord",
    "Revert",
    "SNAPSHOTS_MAX",
    "SnapshotRecord",
    "begin_revert",
    "end_revert",
    "folder_of",
    "load_all",
    "remove",
    "remove_data",
    "revert_under_way",
    "save",
]

_log = logging.getLogger(__name__)

_FOLDER = "snapshots"
_RECORD = "snapshot.json"
_REVERT = "revert.json"
SNAPSHOTS_MAX = 64
"""Of one VM; each costs every disk a table."""

RecordT = TypeVar("RecordT", bound=Record)


class DiskRecord(Record, frozen=True, kw_only=True):
    """One disk of a snapshot."""

    volume: Slug
    format: VolumeFormat
    file: Annotated[str, msgspec.Meta(pattern=r"^disk[0-9]{1,2}\.raw$(?!\n)")] | None = None
    """The name of the copy in the snapshot's folder, of a raw volume."""


class SnapshotRecord(Record, frozen=True, kw_only=True):
    """One snapshot."""

    schema_version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    id: Slug
    tag: Annotated[str, msgspec.Meta(pattern=r"^mica-[0-9a-f]{16}$(?!\n)")]
    """Its name inside the qcow2 files; never used again."""
    created_at: Timestamp
    description: str = ""
    parent: Slug | None = None
    state: SnapshotState
    memory: bool
    memory_bytes: int = 0
    quiesce: bool
    best_effort: bool = False
    quiesced: bool = False
    reason: str | None = None
    machine_type: str
    spec: VmSpec
    disks: tuple[DiskRecord, ...]


class Revert(Record, frozen=True, kw_only=True):
    """A revert that has begun: nothing but its end makes the VM whole again."""

    schema_version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    snapshot: Slug


def folder_of(vm_folder: Path, snapshot: str) -> Path:
    """The folder of one snapshot."""
    return vm_folder / _FOLDER / snapshot


def load_all(vm_folder: Path) -> tuple[dict[str, SnapshotRecord], dict[str, str]]:
    """The snapshots of a VM by id, and of those that can't be used, why (blocking).

    A folder without a record is left from an interrupted creation or deletion: it is removed, with
    its memory.
    """
    found: dict[str, SnapshotRecord] = {}
    broken: dict[str, str] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in names(vm_folder / _FOLDER):
            folder = vm_folder / _FOLDER / name
            if not is_folder(folder):
                continue
            try:
                record = _read(folder / _RECORD, SnapshotRecord)
            except FileNotFoundError:
                _log.warning("what is left of snapshot %s goes", folder)
                with contextlib.suppress(OSError):
                    remove_tree(folder)
                continue
            except (OSError, UndecodableError) as error:
                _log.warning("snapshot %s can't be used: %s", folder, error)
                broken[folder.name] = "its description can't be read"
                continue
            if record.id == name:
                found[record.id] = record
            else:
                broken[folder.name] = "its description is that of another one"
    return found, broken


def save(vm_folder: Path, record: SnapshotRecord) -> None:
    """Write a record, and make its folder if there is none; durable on return."""
    make_directory(vm_folder / _FOLDER, 0o700)
    folder = folder_of(vm_folder, record.id)
    make_directory(folder, 0o700)
    write_durably(folder / _RECORD, msgspec.json.encode(record))


def remove_data(vm_folder: Path, snapshot: str) -> None:
    """Remove everything in a snapshot's folder except the record; durable on return."""
    folder = folder_of(vm_folder, snapshot)
    with contextlib.suppress(FileNotFoundError):
        for name in names(folder):
            if name != _RECORD:
                remove_tree(folder / name)
        fsync_directory(folder)


def remove(vm_folder: Path, snapshot: str) -> None:
    """Remove a snapshot's folder: the record last, so that a crash leaves something to finish."""
    folder = folder_of(vm_folder, snapshot)
    remove_data(vm_folder, snapshot)
    with contextlib.suppress(FileNotFoundError):
        unlink_durably(folder / _RECORD)
        remove_tree(folder)
        fsync_directory(folder.parent)


def begin_revert(vm_folder: Path, revert: Revert) -> None:
    """From here on the VM is as good as reverted; durable on return."""
    write_durably(vm_folder / _REVERT, msgspec.json.encode(revert))


def revert_under_way(vm_folder: Path) -> Revert | None:
    """The revert that was begun and has not ended; UndecodableError if it is unreadable."""
    try:
        return _read(vm_folder / _REVERT, Revert)
    except FileNotFoundError:
        return None


def end_revert(vm_folder: Path) -> None:
    """It is done; durable on return."""
    unlink_durably(vm_folder / _REVERT)


def _read(path: Path, kind: type[RecordT]) -> RecordT:
    return decode_json(read_limited(path, RECORD_MAX_BYTES), kind)
