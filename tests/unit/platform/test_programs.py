"""The programs of another's machine that hosted mode runs with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from vmkernel.host import Runner
from vmkernel.host.kvm import KvmProbe
from vmkernel.platform.programs import Programs, StartRefusedError, check_programs, install_command

QEMU = "echo QEMU emulator version {}; echo pc-q35-{} x"
GOOD = {
    "qemu-system-x86_64": QEMU.format("10.0.2", "10.0"),
    "qemu-img": "echo qemu-img version 10.0.2",
    "swtpm": "echo TPM emulator version 0.7.1, Copyright",
}


def check(runner: Runner, **given: Any) -> Programs:
    return asyncio.run(check_programs(runner, **given))


def _runner(folder: Path, **changed: str) -> Runner:
    programs = {}
    for name, text in {**GOOD, **changed}.items():
        programs[name] = folder / name
        programs[name].write_text(f"#!/bin/sh\n{text}\n")
        programs[name].chmod(0o755)
    return Runner(programs)


def test_versions_are_reported(tmp_path: Path) -> None:
    found = check(_runner(tmp_path)).found
    assert [(p.name, p.version) for p in found] == [
        ("qemu-system-x86_64", "10.0.2"),
        ("qemu-img", "10.0.2"),
        ("swtpm", "0.7.1"),
    ]


@pytest.mark.parametrize("version", ["2.11.0", "7.2.22", "8.2.2", "9.2.4"])
def test_what_is_too_old_is_refused(tmp_path: Path, version: str) -> None:
    old = {"qemu-system-x86_64": QEMU.format(version, version[:3])}
    with pytest.raises(StartRefusedError, match=rf"{version}, and Mica needs 10\.0 or newer"):
        check(_runner(tmp_path, **old))
    old = {"qemu-img": f"echo qemu-img version {version}"}
    with pytest.raises(StartRefusedError, match=r"Mica needs 10\.0 or newer"):
        check(_runner(tmp_path, **old))


def test_programs_that_are_not_installed() -> None:
    runner = Runner(environment={"PATH": "/nonexistent"})
    with pytest.raises(StartRefusedError, match=r"^qemu-system-x86_64 is not installed"):
        check(runner)


def test_a_missing_swtpm_is_a_finding(tmp_path: Path) -> None:
    present = _runner(tmp_path).programs
    chosen = {name: path for name, path in present.items() if name != "swtpm"}
    runner = Runner(chosen, environment={"PATH": "/nonexistent"})
    result = check(runner)
    finding = next(f for f in result.findings if f.code == "no-tpm")
    assert finding.message.startswith("swtpm is not installed: VMs with a TPM can't start.")


def test_kvm_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    probe = KvmProbe(False, "There is no /dev/kvm.")
    with pytest.raises(StartRefusedError, match=r"^--accelerator kvm is not possible: There is no"):
        check(_runner(tmp_path), kvm=probe)
    check(_runner(tmp_path), kvm=KvmProbe(True))


def test_a_folder_of_qemu_s_files_must_be_one(tmp_path: Path) -> None:
    runner = _runner(tmp_path)
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(StartRefusedError, match=r"^--qemu-dir "):
            check(runner, data_dir=folder)
    (tmp_path / "qemu").mkdir()
    (tmp_path / "qemu/vgabios-stdvga.bin").touch()
    check(runner, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("ID=debian\n", "sudo apt install qemu-system-x86 ovmf"),
        ('ID=ubuntu\nID_LIKE="debian"\n', "sudo apt install qemu-system-x86 ovmf"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "sudo dnf install qemu-system-x86-core"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "sudo zypper install qemu-x86"),
        ("ID=arch\n", "sudo pacman -S qemu-system-x86 edk2-ovmf"),
        ("ID=plan9\n", None),
        ("", None),
    ],
)
def test_the_command_that_installs(tmp_path: Path, release: str, command: str | None) -> None:
    file = tmp_path / "os-release"
    file.write_text(release)
    found = install_command("qemu", "ovmf", os_release=file)
    assert found is None if command is None else str(found).startswith(command)
