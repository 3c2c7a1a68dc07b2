"""The KVM probe's trial guest, with TCG in KVM's place: the machine's own isn't to be trusted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance_build.tools.sandbox import ToolsSandbox
from firmware.guest_firmware import find_uefi
from tests.framework import inputs
from tests.framework.hosted import qemu_programs
from vmkernel.host import Runner
from vmkernel.host import trial_guest as module
from vmkernel.host.kvm import try_kvm


@pytest.mark.parametrize("firmware", ["uefi", "bios"])
def test_a_trial_guest_speaks(tmp_path: Path, firmware: str) -> None:
    share = inputs.tools() / "usr/share"
    uefi = find_uefi(folders=(share,)) if firmware == "uefi" else None
    assert (uefi is None) == (firmware == "bios")
    runner = Runner(programs=qemu_programs(tmp_path))
    folders = [share / "qemu", share / "seabios"]
    probe = asyncio.run(
        try_kvm(runner, uefi=uefi, data_dirs=folders, accelerator="tcg", timeout_s=60)
    )
    assert probe.usable, probe.reason


def test_the_boot_sector_is_its_source_assembled(tmp_path: Path) -> None:
    source = Path(module.__file__).with_suffix(".S")
    (tmp_path / "sector.S").write_bytes(source.read_bytes())
    sandbox = ToolsSandbox(inputs.tools(), writable=(tmp_path,))
    link = ["ld", "-m", "elf_x86_64", "-Ttext=0x7c00", "--oformat", "binary"]
    sandbox.run(["as", "--64", "-o", tmp_path / "sector.o", tmp_path / "sector.S"], timeout_s=60)
    sandbox.run([*link, "-o", tmp_path / "sector", tmp_path / "sector.o"], timeout_s=60)
    assert module.boot_disk().startswith((tmp_path / "sector").read_bytes())
