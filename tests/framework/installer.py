"""Debian's own installer: an operating system that we did not make, as kernel and initrd and as CD.

The netboot package holds the boot files of the installer's mini.iso, but not the ISO itself; it is
put together here by Debian's recipe from those files and Debian's isolinux, none of them changed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from appliance_build.tools.sandbox import ToolsSandbox
from tests.framework import inputs

__all__ = ["FIRST_SCREEN", "Installer", "installer"]

FIRST_SCREEN = r"Select a language|Choose the language"
"""What the installer's first screen says, whichever frontend it has."""


@dataclass(frozen=True)
class Installer:
    """The forms of the installer."""

    kernel: Path
    initrd: Path
    iso: Path


def installer() -> Installer:
    """The installer; its ISO is made now if it is not there yet."""
    tree = inputs.guests()
    found = sorted(tree.glob("usr/lib/debian-installer/images/*/amd64/text"))
    if len(found) != 1:
        raise inputs.MissingInputError(f"{tree} has not one text installer but {found}")
    boot = found[0] / "debian-installer/amd64"
    with inputs.making("installer") as work:
        iso = work / f"mini-{tree.name}.iso"
        if not iso.exists():
            _make_iso(tree, boot, iso)
    return Installer(kernel=boot / "linux", initrd=boot / "initrd.gz", iso=iso)


def _make_iso(tree: Path, boot: Path, iso: Path) -> None:
    work = iso.with_suffix(".tree")
    shutil.rmtree(work, ignore_errors=True)
    target = work / "debian-installer/amd64"
    target.mkdir(parents=True)
    for name in ("linux", "initrd.gz"):
        shutil.copyfile(boot / name, target / name)
    shutil.copytree(boot / "boot-screens", target / "boot-screens")
    shutil.copyfile(tree / "usr/lib/ISOLINUX/isolinux.bin", work / "isolinux.bin")
    shutil.copyfile(boot / "boot-screens/ldlinux.c32", work / "ldlinux.c32")
    shutil.copyfile(boot / "boot-screens/syslinux.cfg", work / "isolinux.cfg")
    made = iso.with_suffix(".new")
    ToolsSandbox(inputs.tools(), writable=[iso.parent]).run(
        [
            *("xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-V", "DEBIAN-MINI"),
            *("-c", "boot.cat", "-b", "isolinux.bin"),
            *("-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"),
            *("-o", made, work),
        ],
        timeout_s=120,
    )
    shutil.rmtree(work)
    made.rename(iso)
