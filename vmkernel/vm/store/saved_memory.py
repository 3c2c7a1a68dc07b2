"""A suspended VM's memory in its folder: writing, verifying and removing it.

suspend.state.new   being written; left over where the writing was cut off, and then removed
suspend.state       QEMU's migration stream, flushed
suspend.json        says that it is complete, and what it needs; written last, removed first

The last one is the commit: as long as it is there, the guest has not run since, and the disks are
as the memory knows them.
"""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from vmkernel import clock
from vmkernel.decoding import UndecodableError, decode_json
from vmkernel.devices import Accelerator
from vmkernel.devices.plan import BootTopology
from vmkernel.devices.topology import topology_of, usb_devices
from vmkernel.host.errors import DatastoreFullError
from vmkernel.host.files import (
    RECORD_MAX_BYTES,
    create_file,
    exists,
    free_bytes,
    move,
    open_regular,
    read_limited,
    remove,
    unlink_durably,
    write_durably,
)
from vmkernel.host.sysfs import PROC, read_text
from vmkernel.model import (
    ErrorCode,
    MemoryImageStatus,
    MicaError,
    Record,
    Timestamp,
    VmSpec,
)
from vmkernel.qemu import Qmp, QmpCommandError, hotplug
from vmkernel.vm.spec.defaults import with_defaults
from vmkernel.vm.spec.scope import without_host_fields
from vmkernel.vm.store.definition import VmDefinition
from vmkernel.vm.store.launch_record import LaunchRecord

__all__ = [
    "MemoryImage",
    "Suspension",
    "check_fits",
    "check_space",
    "create",
    "find",
    "forget",
    "open_image",
    "seal",
    "sweep",
    "topology",
]

_RECORD = "suspend.json"
_STATE = "suspend.state"
_NEW = "suspend.state.new"
_SCHEMA = 1
_CHUNK_BYTES = 4 << 20
_DEVICES_BYTES = 64 << 20
"""What the devices' own state may take beside the memory: video memory, mostly."""


class MemoryImage(Record, frozen=True, kw_only=True):
    """A complete memory image."""

    schema_version: Annotated[int, msgspec.Meta(ge=_SCHEMA, le=_SCHEMA)] = _SCHEMA
    taken_at: Timestamp
    uuid: str
    machine_type: str
    accelerator: Accelerator
    processor: str
    """The host's CPU, if the guest saw that one; empty if it saw a CPU model of QEMU."""
    size_bytes: int
    crc32: int
    started: VmSpec | None = None
    """The spec that the machine was started with, without fields that the guest doesn't see; none:
    the VM's own spec."""
    dimms: tuple[tuple[int, int], ...] = ()
    """Number and bytes of each DIMM that was added since."""
    usb_units: tuple[tuple[str, int], ...] = ()
    """Key and place of each disk and drive on USB."""


@dataclass(frozen=True)
class Suspension:
    """A folder that holds an image, or what should be one."""

    image: MemoryImage | None
    problem: str | None = None
    """Why it can't be used, if its record can't be read."""

    def topology(self, spec: VmSpec) -> BootTopology:
        """What the machine must have that takes it up; `spec` is the VM's own."""
        if self.image is None:
            return topology_of(with_defaults(spec))
        started = with_defaults(self.image.started or spec)
        return topology_of(started, self.image.dimms, self.image.usb_units)

    def status(self) -> MemoryImageStatus | None:
        if self.image is None:
            return None
        return MemoryImageStatus(
            taken_at=self.image.taken_at,
            size_bytes=self.image.size_bytes,
            accelerator=self.image.accelerator.value,
        )


# --- making one; these wait for disks: call them in a thread -----------------------------------


def check_space(folder: Path, definition: VmDefinition) -> None:
    """Raise `insufficient-space` if the whole memory would not fit."""
    need = definition.spec.memory_bytes + _DEVICES_BYTES
    _, free = free_bytes(folder)
    if free < need:
        raise DatastoreFullError(
            f"The memory of VM {definition.id} needs up to {need >> 20} MiB, and {free >> 20} MiB"
            f" are free on datastore {definition.spec.datastore}"
        )


def refusal_of_qemu(what: str, error: QmpCommandError) -> MicaError:
    """The failure of a command that writes to a disk; a full one is `insufficient-space`."""
    if os.strerror(errno.ENOSPC) in str(error):
        return MicaError(ErrorCode.INSUFFICIENT_SPACE, f"{what}: no space is left.")
    return MicaError(ErrorCode.UNSUPPORTED, f"{what}: {error}")


def create(folder: Path) -> int:
    """A writable descriptor of a file for a new image; anything in its place is replaced."""
    remove(folder / _NEW)
    return create_file(folder / _NEW)


async def topology(qmp: Qmp, record: LaunchRecord | None, spec: VmSpec) -> BootTopology:
    """That of a machine that runs with `spec`; `record` is of its start."""
    started = record.definition.spec if record is not None else spec
    units = await hotplug.usb_units(qmp, usb_devices(with_defaults(spec)))
    return topology_of(with_defaults(started), await hotplug.dimms(qmp), units)


def seal(
    folder: Path,
    fd: int,
    definition: VmDefinition,
    accelerator: Accelerator,
    topology: BootTopology,
) -> Suspension:
    """Make a written image durable, and mark it as complete."""
    os.fsync(fd)
    with open_image(folder, _NEW) as file:
        crc32 = _crc32(file.fileno())
        size_bytes = os.fstat(file.fileno()).st_size
    image = MemoryImage(
        taken_at=clock.now(),
        uuid=definition.uuid,
        machine_type=definition.machine_type,
        accelerator=accelerator,
        processor=_processor(definition, accelerator),
        size_bytes=size_bytes,
        crc32=crc32,
        started=without_host_fields(topology.started),
        dimms=topology.dimms,
        usb_units=topology.usb_units,
    )
    move(folder / _NEW, folder / _STATE)
    write_durably(folder / _RECORD, msgspec.json.encode(image))  # flushes the folder as well
    return Suspension(image)


# --- using one ---------------------------------------------------------------------------------


def find(folder: Path) -> Suspension | None:
    """The memory image in a VM's folder; None if the VM isn't suspended."""
    try:
        data = read_limited(folder / _RECORD, RECORD_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Suspension(None, f"its record can't be read ({error.strerror or error})")
    try:
        return Suspension(decode_json(data, MemoryImage))
    except UndecodableError as error:
        return Suspension(None, f"its record can't be understood ({error})")


def check_fits(suspension: Suspension, definition: VmDefinition, present: Accelerator) -> None:
    """Raise `unsupported` if this host or this VM differs from what the image was taken of."""
    image, vm_id = suspension.image, definition.id
    if image is None:
        raise _useless(vm_id, suspension.problem or "", ErrorCode.DIGEST_MISMATCH)
    if image.uuid != definition.uuid or image.machine_type != definition.machine_type:
        raise _useless(vm_id, "it is that of another machine", ErrorCode.UNSUPPORTED)
    if image.accelerator is not present:
        raise _useless(
            vm_id,
            f"it ran with {image.accelerator} and this host has {present} now",
            ErrorCode.UNSUPPORTED,
        )
    here = _processor(definition, present)
    if image.processor != here:
        raise _useless(
            vm_id,
            f"it ran on a processor {image.processor!r} and this one is {here!r}",
            ErrorCode.UNSUPPORTED,
        )


def verify(folder: Path, image: MemoryImage, vm_id: str) -> None:
    """Read the whole image; raise `digest-mismatch` if it isn't as it was written."""
    try:
        with open_image(folder) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes == image.size_bytes and _crc32(file.fileno()) == image.crc32:
                return
    except FileNotFoundError:
        size_bytes = 0
    raise _useless(
        vm_id,
        f"{size_bytes} of its {image.size_bytes} bytes are there"
        if size_bytes != image.size_bytes
        else "it is damaged",
        ErrorCode.DIGEST_MISMATCH,
    )


def open_image(folder: Path, name: str = _STATE) -> _Opened:
    """An image, for reading, until the block is left."""
    return _Opened(open_regular(folder / name, os.O_RDONLY))


def useless(vm_id: str, why: str) -> MicaError:
    """The failure for an image that QEMU refused."""
    return _useless(vm_id, why, ErrorCode.UNSUPPORTED)


def forget(folder: Path) -> None:
    """From here on, durably, the VM isn't suspended any more; the rest is removed after that."""
    unlink_durably(folder / _RECORD)


def sweep(folder: Path) -> None:
    """Remove what belongs to no complete image."""
    remove(folder / _NEW)
    if not exists(folder / _RECORD):
        remove(folder / _STATE)


class _Opened:
    """A descriptor as a context."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        return self._fd


def _useless(vm_id: str, why: str, code: ErrorCode) -> MicaError:
    return MicaError(
        code,
        f"The memory image of VM {vm_id} can't be used: {why}."
        " Discard it with discard-state to start the guest without it.",
    )


def _crc32(fd: int) -> int:
    """Detects damage, not attacks: those who can write there have the disks as well."""
    os.lseek(fd, 0, os.SEEK_SET)
    value = 0
    while data := os.read(fd, _CHUNK_BYTES):
        value = zlib.crc32(data, value)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return value


def _processor(definition: VmDefinition, accelerator: Accelerator) -> str:
    if accelerator is Accelerator.TCG or definition.spec.cpus.model != "host":
        return ""
    for line in (read_text(PROC / "cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return ""
