"""The guest that shows whether KVM works: QEMU's arguments and the guest's expected output.

With OVMF it is a UEFI machine with nothing to boot, whose firmware names its boot manager on the
serial line. Without, SeaBIOS starts our own boot sector (trial_guest.S). By the time of their
output, both have used what an ordinary guest needs: timers, interrupts, long mode, a second
processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware.guest_firmware import UefiFiles

__all__ = ["TrialGuest", "boot_disk", "trial_guest"]

_UEFI_SAYS = b"BdsDxe"
"""The part of EDK II that selects what to boot, by the name it prints."""
_BIOS_SAYS = b"MICA RUNS"
_DISK_BYTES = 1 << 20
"""SeaBIOS doesn't read a disk of one sector."""

_SECTOR = bytes.fromhex(
    "ea057c000031c08ed88ec08ed0bc007cfcfb8b1e6c0483c305f43b1e6c0475f9fabf0010b90020f3"
    "abc70600100320c70600200330c70618200340c7060030830066c706b84f9300e0fec70600060000"
    "c6060080eac7060180967cc7060380000066b8200000000f22e066b8001000000f22d866b9800000"
    "c00f320d00010f300f0116107d0f20c0660d010000800f22c0eaa27c080031c08ed8f0ff060006f4"
    "ebfdbe0003e0fec70600450c00e839000000c70608460c00e82e000000c70608460c00f39066833c"
    "25000600000074f3bef57c000066bafd03eca82074fb66baf803acee84c075edf4ebfdb9204e0000"
    "e480e2fcc34d4943412052554e530a00000000000000000000000000009a20000f00007d"
)


@dataclass(frozen=True)
class TrialGuest:
    """A guest to be started with its serial line on stdout."""

    arguments: tuple[str, ...]
    says: bytes
    """The output on its serial line once it has run."""


def boot_disk() -> bytes:
    """A raw disk with the boot sector."""
    return (_SECTOR.ljust(510, b"\0") + b"\x55\xaa").ljust(_DISK_BYTES, b"\0")


def trial_guest(
    accelerator: str, *, uefi: UefiFiles | None, disk: Path, data_dirs: Sequence[Path] = ()
) -> TrialGuest:
    """The guest for a host with these UEFI files; without them it starts from `disk`.

    Neither the files nor the disk are written. `data_dirs` are the folders with SeaBIOS.
    """
    arguments = [
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-net", "none"),
        *("-machine", f"q35,accel={accelerator}", "-smp", "2", "-m", "256", "-serial", "stdio"),
    ]
    if accelerator == "kvm":
        arguments += ["-cpu", "host"]
    for folder in data_dirs:
        arguments += ["-L", str(folder)]
    if uefi is None:
        arguments += ["-drive", f"if=none,id=trial,format=raw,readonly=on,file={disk}"]
        arguments += ["-device", "virtio-blk-pci,drive=trial"]
        return TrialGuest(tuple(arguments), _BIOS_SAYS)
    code, variables = (_escaped(path) for path in (uefi.code, uefi.variables))
    arguments += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"]
    arguments += ["-drive", f"if=pflash,format=raw,unit=1,snapshot=on,file={variables}"]
    return TrialGuest(tuple(arguments), _UEFI_SAYS)


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
