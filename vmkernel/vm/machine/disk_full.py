"""A VM that is paused because its datastore is full: when to try again.

no space -> paused -> (5 s, 10 s … 60 s) -> is there room? -> continues; if the next request fails
as well, the wait is doubled. QEMU repeats the failed requests: the guest loses nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmkernel.host.files import free_bytes
from vmkernel.model import MicaError
from vmkernel.vm.context import VmContext
from vmkernel.vm.store.definition import VmDefinition

__all__ = ["EnospcBackoff", "full_reason", "has_room"]

_ROOM_BYTES = 64 << 20
_ROOM_PART = 32


@dataclass
class EnospcBackoff:
    """How often it was tried; owned by the VM's task."""

    first_s: float = 5.0
    last_s: float = 60.0
    wait_s: float = 0.0
    """The present wait; 0 if there was no shortage recently."""
    tried_s: float = 0.0
    """When the VM last continued, on the event loop's clock."""
    number: int = 0

    def begin(self, now_s: float) -> float:
        """A request has failed: returns the wait before a check, in seconds."""
        self.number += 1
        if now_s - self.tried_s > self.last_s:
            self.wait_s = 0.0
        self.wait_s = min(max(self.first_s, self.wait_s * 2), self.last_s)
        return self.wait_s

    def try_again(self, now_s: float) -> None:
        """There is space: the VM is let go on."""
        self.tried_s = now_s

    def end(self) -> None:
        """It runs, ended, or was taken in hand."""
        self.number += 1
        self.wait_s = 0.0


class _Vm(Protocol):
    @property
    def definition(self) -> VmDefinition: ...
    @property
    def host(self) -> VmContext: ...


def full_reason(vm: _Vm, device: str = "") -> str:
    """Which datastore has no space, and what helps; `device` ends with the key of the disk that
    found none, if known.
    """
    spec = vm.definition.spec
    disks = [disk for disk in spec.disks if disk.key == device.rpartition("/")[2]] or spec.disks
    places: dict[str, None] = {}
    for disk in disks:
        with contextlib.suppress(MicaError):
            places[vm.host.storage.volume(disk.volume).datastore] = None
    return (
        f"no space is left on datastore {' or '.join(places) or spec.datastore}; delete"
        " volumes, images or snapshots there, or grow it, and the VM continues."
    )


def has_room(files: Iterable[Path]) -> bool:
    """True if every file's file system has some space again; OSError if one is gone."""
    for path in files:
        capacity, free = free_bytes(path.parent)
        if free < min(_ROOM_BYTES, capacity // _ROOM_PART):
            return False
    return True
