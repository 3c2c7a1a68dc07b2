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
    """A part of a VM's state that is stored beside its disks: UEFI variables without and with
    Secure Boot, the TPM's non-volatile state.
    """

    NVRAM = "nvram"
    """UEFI variables without Secure Boot."""
    NVRAM_SECURE_BOOT = "nvram-secure-boot"
    """UEFI variables with Secure Boot."""
    TPM = "tpm"
    """The TPM's non-volatile state, as swtpm stores it."""


class StateFile(Record, frozen=True, kw_only=True):
    """One complete part of a VM's state."""

    name: StateFileName
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_STATE_FILE_BYTES)]
    """Base64."""


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
    """The guest's system UUID; a new one if omitted."""
    files: Annotated[tuple[StateFile, ...], msgspec.Meta(max_length=len(StateFileName))] = ()


class SavedVm(Record, frozen=True, kw_only=True):
    """A VM as a backup stores it; the same document creates it again."""

    spec: VmSpec
    machine: MachineState
    """Its identity and state, so that the restored VM is the same machine."""
