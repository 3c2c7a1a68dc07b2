"""What was started: written beside a VM's sockets, for a vmkernel after a restart.

It doesn't prove that the VM runs: only the launcher and QMP show that. It has what QEMU can't
report, and in which boot of the host that was true.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.devices import Accelerator
from vmkernel.host.files import RECORD_MAX_BYTES, read_limited, remove, write_lightly
from vmkernel.model import NicStatus, Record, Timestamp, VmState
from vmkernel.vm.store.definition import VmDefinition

__all__ = ["LaunchRecord", "boot_id", "forget_record", "read_record", "write_record"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LaunchRecord(Record, frozen=True, kw_only=True):
    """One start."""

    boot_id: str
    started_at: Timestamp
    run: str = ""
    """What no other start has: two may be within one second."""
    accelerator: Accelerator
    memory_bytes: int
    """What was promised to it of the host's ordinary memory."""
    pool_bytes: int = 0
    """What the host's pool of huge pages has given of its memory."""
    nics: tuple[NicStatus, ...]
    has_ring: bool
    suspending_from: VmState | None = None
    """The state before its memory was being written to disk, until that has ended."""
    end_asked: bool = False
    """True once this run of the guest was asked to end."""
    resuming: bool = False
    """True from the start out of a memory image until the guest runs."""
    reading: bool = False
    """True for a QEMU that only reads the disks of a VM that is off (offline_reader.py)."""
    unplugging: tuple[str, ...] = ()
    """The keys of devices that the guest was asked to give up and still has."""
    unsettled: bool = False
    """True while a change of the running machine may be done in part: the spec may differ from
    what QEMU has (settling.py)."""
    definition: VmDefinition


def boot_id() -> str:
    """The kernel's name for this boot of the host."""
    return _BOOT_ID.read_text().strip()


def write_record(path: Path, record: LaunchRecord) -> None:
    """Replace the record; it need not survive the host, so nothing is flushed."""
    write_lightly(path, msgspec.json.encode(record))


def forget_record(path: Path) -> None:
    """The VM does not run, or what ran isn't known any more."""
    remove(path)


def read_record(path: Path) -> LaunchRecord | None:
    """The record of this boot, or None if there is none that can be used."""
    try:
        record = decode_json(read_limited(path, RECORD_MAX_BYTES), LaunchRecord)
    except (OSError, UndecodableError):
        return None
    return record if record.boot_id == boot_id() else None
