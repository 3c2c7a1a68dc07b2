"""What makes a VM the same machine elsewhere, apart from its spec and its disks."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, Record
from vmkernel.model.vm import VmSpec

__all__ = ["MAX_STATE_FILE_BYTES", "MachineState", "SavedVm", "StateFile", "StateFileName"]

MAX_STATE_FILE_BYTES = 2 << 20
"""Above every firmware's variables (OVMF's 4M flavour: 528 KiB) and any TPM's state (< 1 MiB)."""


class StateFileName(OpenEnum):
    """A part of a VM's state that is kept beside its disks: variables of UEFI without and with
    Secure Boot, the TPM's non-volatile state."""

    NVRAM = "nvram"
    """Variables of UEFI without Secure Boot."""
    NVRAM_SECURE_BOOT = "nvram-secure-boot"
    """Variables of UEFI with Secure Boot."""
    TPM = "tpm"
    """The TPM's non-volatile state, as swtpm keeps it."""


class StateFile(Record, frozen=True, kw_only=True):
    """One part of a VM's state, whole."""

    name: StateFileName
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_STATE_FILE_BYTES)]
    """In base64."""


class MachineState(Record, frozen=True, kw_only=True):
    """The identity and the non-volatile state of a virtual machine."""

    machine_type: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^pc-(q35|i440fx)-[0-9]{1,3}\.[0-9]{1,3}$(?!\n)",
            max_length=32,
            description="QEMU's machine type, such as `pc-q35-10.0`.",
        ),
    ]
    """QEMU machine type, such as `pc-q35-10.0`."""
    uuid: (
        Annotated[
            str,
            msgspec.Meta(
                pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$(?!\n)",
                max_length=36,
                description="A UUID in lower case.",
            ),
        ]
        | None
    ) = None
    """The guest's system UUID; a new one if left out."""
    files: Annotated[tuple[StateFile, ...], msgspec.Meta(max_length=len(StateFileName))] = ()


class SavedVm(Record, frozen=True, kw_only=True):
    """A virtual machine as a backup has it; what creates it again is the same."""

    spec: VmSpec
    machine: MachineState
    """What makes it the same machine again."""
