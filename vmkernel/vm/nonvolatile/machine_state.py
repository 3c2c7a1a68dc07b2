"""The non-volatile state of a VM beside its disks: read for a backup, written for a new VM.

It owns no state; everything that makes a restored VM the same machine is in the record.
"""

from __future__ import annotations

import time
from pathlib import Path

from vmkernel.host.files import read_limited, write_durably
from vmkernel.model import (
    MAX_STATE_FILE_BYTES,
    ErrorCode,
    Firmware,
    MachineState,
    MicaError,
    StateFile,
    StateFileName,
)
from vmkernel.vm.context import VmContext
from vmkernel.vm.nonvolatile import tpm_state
from vmkernel.vm.store.definition import NVRAM_FILES, VmDefinition

__all__ = ["check_state", "read_state", "write_state"]

_PLACES = {
    StateFileName.NVRAM: NVRAM_FILES[Firmware.UEFI],
    StateFileName.NVRAM_SECURE_BOOT: NVRAM_FILES[Firmware.UEFI_SECURE_BOOT],
}
"""Where the variables are in a VM's folder."""
_TPM_PART = "permall"
_READS_MAX = 20
_READ_AGAIN_S = 0.05
"""A guest changes its variables with a few writes within milliseconds; one that never stops
writing them for a second is refused instead of kept torn."""


def read_state(definition: VmDefinition, folder: Path) -> MachineState:
    """The state as it is now, each file as it was at one instant (blocking).

    Raises MicaError: `conflict` if the guest keeps changing it; errors of the file system.
    """
    files = []
    for name, place in _PLACES.items():
        data = _read_steady(definition.id, folder / place)
        if data:
            files.append(StateFile(name=name, data=data))
    if tpm := _tpm(definition.id, folder):
        files.append(StateFile(name=StateFileName.TPM, data=tpm))
    return MachineState(
        machine_type=definition.machine_type, uuid=definition.uuid, files=tuple(files)
    )


def _tpm(vm_id: str, folder: Path) -> bytes:
    """The persistent part of the TPM's state; empty if there is none."""
    try:
        data = tpm_state.read(folder).get(_TPM_PART, b"")
    except OSError as error:
        raise _unreadable(vm_id, error) from error
    if len(data) > MAX_STATE_FILE_BYTES:
        raise MicaError(ErrorCode.CONFLICT, f"The TPM state of VM {vm_id} is too large.")
    return data


def _unreadable(vm_id: str, error: OSError) -> MicaError:
    return MicaError(
        ErrorCode.CONFLICT,
        f"The firmware variables or the TPM state of VM {vm_id} can't be read"
        f" ({error.strerror or error}).",
    )


def _read_steady(vm_id: str, path: Path) -> bytes:
    """A file that was equal in two consecutive reads; empty if there is none."""
    try:
        data = read_limited(path, MAX_STATE_FILE_BYTES)
        for _ in range(_READS_MAX):
            again = read_limited(path, MAX_STATE_FILE_BYTES)
            if again == data:
                return data
            data = again
            time.sleep(_READ_AGAIN_S)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _unreadable(vm_id, error) from error
    raise MicaError(
        ErrorCode.CONFLICT,
        f"The guest of VM {vm_id} keeps changing its firmware variables or its TPM state; retry"
        " when it is idle.",
    )


def check_state(host: VmContext, machine: MachineState) -> None:
    """Raises MicaError naming the field if a VM with this state could not start here."""
    seen = set()
    for index, file in enumerate(machine.files):
        if file.name in seen:
            raise MicaError.field(f"/machine/files/{index}/name", f"{file.name} is there twice.")
        seen.add(file.name)
        secure = file.name is StateFileName.NVRAM_SECURE_BOOT
        firmware = host.uefi_secure_boot if secure else host.uefi
        if file.name is StateFileName.TPM or firmware is None:
            continue
        size = firmware.variables.stat().st_size
        if len(file.data) != size:
            raise MicaError.field(
                f"/machine/files/{index}/data",
                f"{file.name} has {len(file.data)} bytes; this host's firmware keeps its"
                f" variables in exactly {size}.",
            )


def write_state(folder: Path, machine: MachineState) -> None:
    """Put the files into the folder of a VM that is being created; durable on return (blocking)."""
    for file in machine.files:
        if file.name is StateFileName.TPM:
            tpm_state.write(folder, {_TPM_PART: file.data})
        else:
            write_durably(
                folder / _PLACES[file.name], file.data, mode=0o600, limit=MAX_STATE_FILE_BYTES
            )
