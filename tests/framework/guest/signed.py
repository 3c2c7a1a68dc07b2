"""The guest on a disk that starts under Secure Boot: Debian's shim, which Microsoft has signed, its
GRUB and its kernel, which Debian has, and our initrd, which isn't verified.
"""

from __future__ import annotations

from pathlib import Path

from appliance_build.tools.sandbox import ToolsSandbox
from tests.framework import inputs
from tests.framework.guest.build import COMMAND_LINE, TYPE_ESP, blank_disk, guest_files, make_fat

__all__ = ["signed_disk"]

_INSTALLER = "usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64"
_PREFIX = "/debian-installer/amd64/grub"
"""Where this GRUB looks for its configuration."""


def signed_disk(folder: Path) -> Path:
    """Make the disk in a folder."""
    disk, config = folder / "signed.img", folder / "grub.cfg"
    files, boot = guest_files(), inputs.guests() / _INSTALLER
    config.write_text(f"linux /vmlinuz {COMMAND_LINE} mica.tag=signed-disk\ninitrd /initrd\nboot\n")
    blank_disk(disk, TYPE_ESP)
    folders = ["/EFI", "/EFI/BOOT", "/debian-installer", "/debian-installer/amd64", _PREFIX]
    make_fat(
        ToolsSandbox(inputs.tools(), readable=[boot, files.kernel.parent], writable=[folder]),
        disk,
        folders,
        {
            "/EFI/BOOT/BOOTX64.EFI": boot / "bootnetx64.efi",
            "/EFI/BOOT/grubx64.efi": boot / "grubx64.efi",
            f"{_PREFIX}/grub.cfg": config,
            "/vmlinuz": files.kernel,
            "/initrd": files.initrd,
        },
    )
    return disk
