"""The KVM probe around its trial guest: what it starts, and what each end of it means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from firmware.guest_firmware import UefiFiles
from vmkernel.host import kvm
from vmkernel.host.errors import CommandError
from vmkernel.host.kvm import KvmProbe, try_kvm
from vmkernel.host.runner import Completed, Runner
from vmkernel.host.trial_guest import boot_disk, trial_guest
from vmkernel.model import ErrorCode

UEFI = UefiFiles(Path("/x/code, a.fd"), Path("/x/vars.fd"))


class FakeRunner(Runner):
    """QEMU, by what it says on its serial line and how it ends."""

    says: Sequence[bytes] = ()
    ends: Exception | None = None
    seen: list[str]

    async def run(self, argv: Sequence[str | Path], **options: Any) -> Completed:
        object.__setattr__(self, "seen", [str(word) for word in argv])
        sink: Callable[[bytes], None] = options["on_stdout"]
        for data in self.says:
            sink(data)
        if self.ends is not None:
            raise self.ends
        return Completed(0, b"", b"")


def probe(
    *says: bytes, ends: Exception | None = None, uefi: UefiFiles | None = UEFI
) -> tuple[KvmProbe, list[str]]:
    runner = FakeRunner()
    object.__setattr__(runner, "says", says)
    object.__setattr__(runner, "ends", ends)
    return asyncio.run(try_kvm(runner, uefi=uefi)), runner.seen


@pytest.fixture(autouse=True)
def _device_looks_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "glance_at_kvm", lambda: KvmProbe(True))


def failure(code: ErrorCode, detail: str) -> CommandError:
    return CommandError(detail, replay="qemu", returncode=None, output="", code=code)


def test_firmware_that_speaks_is_enough() -> None:
    result, argv = probe(b"\x1b[2JBds", b"Dxe: failed to load")
    assert result.usable
    assert "q35,accel=kvm" in argv
    assert argv[argv.index("-smp") + 1] == "2"
    assert argv[argv.index("-cpu") + 1] == "host"
    assert any("unit=0,readonly=on,file=/x/code,, a.fd" in word for word in argv)
    assert any("unit=1,snapshot=on,file=/x/vars.fd" in word for word in argv)


def test_without_ovmf_the_boot_sector_must_speak() -> None:
    assert not probe(b"BdsDxe", uefi=None)[0].usable
    result, argv = probe(b"SeaBIOS (version)\r\n", b"MICA R", b"UNS\n", uefi=None)
    assert result.usable
    assert not any("pflash" in word for word in argv)


def test_a_guest_that_hangs_is_not_trusted() -> None:
    result, _ = probe(b"", ends=failure(ErrorCode.TIMED_OUT, "killed."))
    assert (result.usable, "within 20 s" in (result.reason or "")) == (False, True)


def test_a_guest_that_cannot_start_says_why() -> None:
    result, _ = probe(ends=failure(ErrorCode.UNAVAILABLE, "qemu can't be started: gone."))
    assert not result.usable
    assert "gone" in (result.reason or "")


def test_a_guest_that_ends_in_silence_is_not_trusted() -> None:
    result, _ = probe(b"x" * 4096)
    assert not result.usable
    assert "ended without output" in (result.reason or "")


def test_a_device_that_looks_wrong_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "glance_at_kvm", lambda: KvmProbe(False, "no device"))
    assert asyncio.run(try_kvm(FakeRunner())) == KvmProbe(False, "no device")


def test_the_boot_disk_is_one_that_a_bios_starts() -> None:
    disk = boot_disk()
    assert disk[510:512] == b"\x55\xaa"
    assert len(disk) == 1 << 20
    arguments = trial_guest(
        "tcg", uefi=None, disk=Path("/dev/fd/9"), data_dirs=[Path("/q")]
    ).arguments
    assert "-cpu" not in arguments
    assert arguments[arguments.index("-L") + 1] == "/q"
