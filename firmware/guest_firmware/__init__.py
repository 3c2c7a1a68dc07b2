"""What guests boot from: the UEFI flavours and where distributions keep them, as data only; it must
not open or copy any of it.

SeaBIOS needs no entry: QEMU finds it by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["UEFI", "UEFI_SECURE_BOOT", "UefiFiles", "UefiFlavour", "find_uefi"]


@dataclass(frozen=True)
class UefiFiles:
    """One build of OVMF."""

    code: Path
    """The firmware itself; shared, read-only."""
    variables: Path
    """The template of a VM's variable store."""


@dataclass(frozen=True)
class UefiFlavour:
    """A kind of UEFI, by the files that hold it, the appliance's first."""

    name: str
    candidates: tuple[UefiFiles, ...]


UEFI = UefiFlavour(
    "uefi",
    (
        # Debian, Ubuntu, the appliance
        UefiFiles(Path("OVMF/OVMF_CODE_4M.fd"), Path("OVMF/OVMF_VARS_4M.fd")),
        # Fedora, openSUSE
        UefiFiles(Path("edk2/ovmf/OVMF_CODE.fd"), Path("edk2/ovmf/OVMF_VARS.fd")),
        UefiFiles(Path("qemu/ovmf-x86_64-code.bin"), Path("qemu/ovmf-x86_64-vars.bin")),
        # Arch
        UefiFiles(Path("edk2/x64/OVMF_CODE.4m.fd"), Path("edk2/x64/OVMF_VARS.4m.fd")),
    ),
)
"""UEFI without Secure Boot; paths are relative to the folder of shared data."""

UEFI_SECURE_BOOT = UefiFlavour(
    "uefi-secure-boot",
    (
        # Debian, Ubuntu, the appliance
        UefiFiles(Path("OVMF/OVMF_CODE_4M.secboot.fd"), Path("OVMF/OVMF_VARS_4M.ms.fd")),
        # Fedora, openSUSE
        UefiFiles(Path("edk2/ovmf/OVMF_CODE.secboot.fd"), Path("edk2/ovmf/OVMF_VARS.secboot.fd")),
        UefiFiles(
            Path("qemu/ovmf-x86_64-smm-ms-code.bin"), Path("qemu/ovmf-x86_64-smm-ms-vars.bin")
        ),
    ),
)
"""UEFI that starts only what is signed: with Microsoft's keys or those of the platform's vendor,
which the variables hold from the beginning; it runs in system management mode.
"""

_SHARED = (Path("/usr/share"), Path("/usr/local/share"))


def find_uefi(
    flavour: UefiFlavour = UEFI, *, folders: Sequence[Path] = _SHARED
) -> UefiFiles | None:
    """The first build that is there, by its real path."""
    for folder in folders:
        for files in flavour.candidates:
            code, variables = folder / files.code, folder / files.variables
            if code.is_file() and variables.is_file():
                return UefiFiles(code.resolve(), variables.resolve())
    return None
