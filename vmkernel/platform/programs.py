"""The programs that hosted mode needs: which are installed, whether they are new enough, and the
command that installs missing ones.

A start without a usable QEMU is refused. What only some VMs need (UEFI, Secure Boot, a TPM) is a
finding if it is missing.
"""

from __future__ import annotations

import asyncio
import getpass
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from firmware.guest_firmware import UEFI, UEFI_SECURE_BOOT, find_uefi
from vmkernel.host import CommandError, Runner
from vmkernel.host.kvm import KvmProbe
from vmkernel.model import Finding, HostProgram, Severity
from vmkernel.qemu import PROGRAM

__all__ = ["LEAST_QEMU", "Programs", "StartRefusedError", "check_programs", "install_command"]

LEAST_QEMU = (10, 0)
"""Of Debian 13, and the oldest that the hosted tests have passed with. 7.2 (Debian 12) aborts when
a backup's connection ends and knows no migration to a descriptor's channel."""

_TIMEOUT_S = 30.0
_VERSIONS = {
    name: re.compile(words + rb" version (\d+)\.(\d+)(?:\.(\d+))?")
    for name, words in (
        (PROGRAM, b"QEMU emulator"),
        ("qemu-img", b"qemu-img"),
        ("swtpm", b"TPM emulator"),
    )
}
_QEMU_FILES = ("kvmvapic.bin", "vgabios-stdvga.bin", "bios-256k.bin", "efi-virtio.rom")
_PACKAGES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "debian": (
        "sudo apt install",
        {"qemu": "qemu-system-x86", "qemu-img": "qemu-utils", "ovmf": "ovmf", "swtpm": "swtpm"},
    ),
    "fedora": (
        "sudo dnf install",
        {
            "qemu": "qemu-system-x86-core",
            "qemu-img": "qemu-img",
            "ovmf": "edk2-ovmf",
            "swtpm": "swtpm",
        },
    ),
    "suse": (
        "sudo zypper install",
        {"qemu": "qemu-x86", "qemu-img": "qemu-img", "ovmf": "qemu-ovmf-x86_64", "swtpm": "swtpm"},
    ),
    "arch": (
        "sudo pacman -S",
        {
            "qemu": "qemu-system-x86",
            "qemu-img": "qemu-img",
            "ovmf": "edk2-ovmf",
            "swtpm": "swtpm",
        },
    ),
}
"""How distributions (ID and ID_LIKE of os-release(5)) install each part."""


class StartRefusedError(Exception):
    """Mica can't start here; the message is a sentence for the user."""


@dataclass(frozen=True)
class Programs:
    """The programs found."""

    found: tuple[HostProgram, ...] = ()
    findings: tuple[Finding, ...] = ()


def install_command(*parts: str, os_release: Path = Path("/etc/os-release")) -> str | None:
    """The command that installs parts (`qemu`, `qemu-img`, `ovmf`, `swtpm`) on this system."""
    try:
        fields = dict(
            line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line
        )
    except (OSError, UnicodeDecodeError):
        return None
    alike = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
    for system in alike:
        command, packages = _PACKAGES.get(system.partition("-")[0], ("", {}))
        if command:
            return " ".join([command, *(packages[part] for part in parts)])
    return None


async def check_programs(
    runner: Runner, *, data_dir: Path | None = None, kvm: KvmProbe | None = None
) -> Programs:
    """Check all of them. Raises StartRefusedError if no VM could run.

    `data_dir` is the one that the command line names; `kvm` is the result of the check of KVM, if
    guests must run on it.
    """
    if data_dir is not None:
        _check_data_dir(data_dir)
    if kvm is not None and not kvm.usable:
        raise StartRefusedError(f"--accelerator kvm is not possible: {kvm.reason} {_kvm_advice()}")
    qemu, qemu_img, swtpm = await asyncio.gather(
        _version(runner, PROGRAM), _version(runner, "qemu-img"), _version(runner, "swtpm")
    )
    for name, part, version in ((PROGRAM, "qemu", qemu), ("qemu-img", "qemu-img", qemu_img)):
        _check_version(runner, name, part, version)
    if swtpm.reason is not None and "swtpm" in runner.programs:
        raise StartRefusedError(f"{runner.programs['swtpm']} can't be used: {swtpm.reason}")
    return Programs(
        found=tuple(
            HostProgram(name=name, version=version.text)
            for name, version in ((PROGRAM, qemu), ("qemu-img", qemu_img), ("swtpm", swtpm))
            if version.text
        ),
        findings=tuple(_findings(data_dir, has_tpm=swtpm.reason is None)),
    )


@dataclass(frozen=True)
class _Version:
    numbers: tuple[int, ...] = ()
    reason: str | None = None
    """Why it can't be used."""
    missing: bool = False

    @property
    def text(self) -> str:
        return ".".join(str(number) for number in self.numbers)


async def _version(runner: Runner, name: str) -> _Version:
    try:
        done = await runner.run([name, "--version"], timeout_s=_TIMEOUT_S)
    except CommandError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        return _Version(
            reason="there is no such program" if missing else str(error), missing=missing
        )
    match = _VERSIONS[name].search(done.stdout)
    if match is None:
        return _Version(reason=f"it does not report a version as {name} does")
    if name == PROGRAM:
        try:
            machines = await runner.run([name, "-machine", "help"], timeout_s=_TIMEOUT_S)
        except CommandError as error:
            return _Version(reason=str(error))
        if b"pc-q35-" not in machines.stdout:
            return _Version(reason="it does not emulate PCs (pc-q35)")
    return _Version(numbers=tuple(int(number) for number in match.groups() if number))


def _check_version(runner: Runner, name: str, part: str, version: _Version) -> None:
    given = runner.programs.get(name)
    least = ".".join(map(str, LEAST_QEMU))
    if given is not None and version.reason is not None:
        raise StartRefusedError(f"{given} can't be used as {name}: {version.reason.rstrip('.')}.")
    if version.missing:
        raise StartRefusedError(
            f"{name} is not installed; Mica needs QEMU {least} or newer: {_install_or_name(part)}."
        )
    if version.reason is not None:
        raise StartRefusedError(f"{name} can't be used: {version.reason.rstrip('.')}.")
    if version.numbers[:2] < LEAST_QEMU:
        raise StartRefusedError(
            f"{given or name} is version {version.text}, and Mica needs {least} or newer, as in"
            f" Debian 13: upgrade it, or name another one with --{part}."
        )


def _install_or_name(part: str) -> str:
    command = install_command("qemu", "qemu-img", "ovmf", "swtpm")
    return f"{command}" if command else f"install it, or name it with --{part}"


def _check_data_dir(folder: Path) -> None:
    if not folder.is_dir():
        raise StartRefusedError(f"--qemu-dir {folder} is not a folder.")
    places = (folder, folder / "qemu", folder / "seabios")
    if not any((place / name).is_file() for place in places for name in _QEMU_FILES):
        raise StartRefusedError(
            f"--qemu-dir {folder} contains no QEMU firmware (such as {_QEMU_FILES[1]})."
        )


def _kvm_advice() -> str:
    if Path("/dev/kvm").exists():
        return (
            f"Let your user open it (sudo usermod -aG kvm {_user()}, then log in again), "
            "or omit --accelerator."
        )
    return "Enable it in the machine's firmware, or omit --accelerator."


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "USER"


def _findings(data_dir: Path | None, *, has_tpm: bool) -> Iterator[Finding]:
    folders = (*((data_dir,) if data_dir else ()), Path("/usr/share"))
    if find_uefi(UEFI, folders=folders) is None:
        yield _missing("no-uefi", "OVMF", "VMs with UEFI (the default) can't start", ["ovmf"])
    elif find_uefi(UEFI_SECURE_BOOT, folders=folders) is None:
        yield _missing(
            "no-secure-boot", "OVMF with Secure Boot", "VMs with Secure Boot can't start", ["ovmf"]
        )
    if not has_tpm:
        yield _missing("no-tpm", "swtpm", "VMs with a TPM can't start", ["swtpm"])


def _missing(code: str, what: str, effect: str, parts: Iterable[str]) -> Finding:
    command = install_command(*parts)
    return Finding(
        code=code,
        severity=Severity.WARNING,
        message=f"{what} is not installed: {effect}."
        + (f" Install it: {command}" if command else ""),
    )
