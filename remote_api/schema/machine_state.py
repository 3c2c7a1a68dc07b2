"""What makes a VM the same machine elsewhere, besides its spec and its disks."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import WireEnum, WireModel

__all__ = ["MachineState", "StateFile", "StateFileName"]


class StateFileName(WireEnum):
    """A part of a VM's state that is kept beside its disks: variables of UEFI without and with
    Secure Boot, the TPM's non-volatile state."""

    NVRAM = "nvram"
    NVRAM_SECURE_BOOT = "nvram-secure-boot"
    TPM = "tpm"


class StateFile(WireModel, frozen=True, kw_only=True):
    """One part of a VM's state, whole."""

    name: StateFileName
    data: Annotated[bytes, Meta(min_length=1, max_length=2 << 20, description="In base64.")]


class MachineState(WireModel, frozen=True, kw_only=True):
    """The identity and the non-volatile state of a virtual machine."""

    machine_type: Annotated[
        str,
        Meta(
            pattern=r"^pc-(q35|i440fx)-[0-9]{1,3}\.[0-9]{1,3}$(?!\n)",
            max_length=32,
            description="QEMU machine type, such as `pc-q35-10.0`.",
        ),
    ]
    uuid: (
        Annotated[
            str,
            Meta(
                pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$(?!\n)",
                max_length=36,
                description="The guest's system UUID; a new one if left out.",
            ),
        ]
        | None
    ) = None
    files: Annotated[tuple[StateFile, ...], Meta(max_length=3)] = ()
