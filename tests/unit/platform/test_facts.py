"""What the machine is, read from made-up files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.platform.sample_tree import SampleMachine
from vmkernel.model import Severity
from vmkernel.platform.facts import boot_info, cpu_info, memory_info, virtualisation_info
from vmkernel.platform.kernel_findings import missing_firmware
from vmkernel.platform.watched_units import WatchedUnits

CPU = """\
processor\t: {number}
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC Processor
physical id\t: {socket}
core id\t: {core}
flags\t\t: fpu {flags}

"""


@pytest.fixture
def machine(tmp_path: Path) -> SampleMachine:
    """An empty machine."""
    return SampleMachine(tmp_path)


def cpus(machine: SampleMachine, flags: str = "svm") -> None:
    """Two sockets of two cores with two threads each."""
    text = "".join(
        CPU.format(number=n, socket=n // 4, core=n // 2 % 2, flags=flags) for n in range(8)
    )
    machine.write("proc/cpuinfo", text)


def test_processors_are_counted(machine: SampleMachine) -> None:
    cpus(machine)
    info = cpu_info(machine.proc)
    assert (info.vendor, info.sockets, info.cores, info.threads) == ("AMD", 2, 4, 8)


def test_memory(machine: SampleMachine) -> None:
    machine.write("proc/meminfo", "MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable: 1024 kB\n")
    info = memory_info(machine.proc)
    assert (info.total_bytes, info.available_bytes) == (2 << 20, 1 << 20)


@pytest.mark.parametrize(
    ("flags", "node", "tried", "log", "available", "words"),
    [
        ("svm", True, None, "", True, ""),
        ("vmx", True, "kvm", "", True, ""),
        ("", False, None, "", False, "reports no hardware virtualisation"),
        ("", False, None, "x86/cpu: VMX (outside TXT) disabled by BIOS", False, "firmware set-up"),
        ("svm", False, None, "", False, "did not start"),
        ("svm", True, "tcg", "", False, "trial guest"),
    ],
)
def test_virtualisation(
    machine: SampleMachine,
    flags: str,
    node: bool,
    tried: str | None,
    log: str,
    available: bool,
    words: str,
) -> None:
    cpus(machine, flags)
    if node:
        machine.write("dev/kvm", "")
    info = virtualisation_info(accelerator=tried, log=log, proc=machine.proc, dev=machine.dev)
    assert info.available is available
    assert info.extension == (flags or None)
    assert words in (info.reason or "")


OFF = "x86/cpu: VMX (outside TXT) disabled by BIOS"


@pytest.mark.parametrize(
    ("tried", "why", "log", "told"),
    [
        ("tcg", "It hung.", OFF, "It hung."),
        ("tcg", None, OFF, "firmware set-up"),
        ("tcg", None, "", "reports no hardware virtualisation"),
        ("kvm", "It hung.", OFF, None),
        (None, None, OFF, None),
    ],
)
def test_who_tried_knows_best_why_not(
    machine: SampleMachine, tried: str | None, why: str | None, log: str, told: str | None
) -> None:
    """A reason is there exactly if KVM isn't; that of the trial counts more than the log's."""
    machine.write("dev/kvm", "")
    info = virtualisation_info(
        accelerator=tried, reason=why, log=log, proc=machine.proc, dev=machine.dev
    )
    assert (info.reason is None) is info.available is (told is None)
    assert (told or "") in (info.reason or "")


def test_boot_by_uefi_counts_from_power_on(machine: SampleMachine) -> None:
    machine.efi(
        LoaderEntrySelected="mica-1.2.3+2-1.efi",
        LoaderTimeInitUSec="2500000",
        LoaderTimeExecUSec="4000000",
    )
    info = boot_info({"api": 10.0}, sys=machine.sys)
    assert (info.firmware, info.bank, info.secure_boot) == ("uefi", "mica-1.2.3", False)
    assert info.timings_s == {"loader": 2.5, "kernel": 4.0, "api": 14.0}


def test_boot_by_bios_counts_from_the_kernel(machine: SampleMachine) -> None:
    info = boot_info({"api": 10.0}, sys=machine.sys)
    assert (info.firmware, info.bank, info.timings_s) == ("bios", None, {"api": 10.0})


def test_missing_firmware_is_found_once_a_file() -> None:
    log = (
        "<4>[    1.0] bnx2 0000:03:00.0: Direct firmware load for bnx2/a.fw failed with error -2\n"
        "<4>[    1.1] bnx2 0000:03:00.0: Direct firmware load for bnx2/a.fw failed with error -2\n"
        "<4>[    1.2] r8169 0000:04:00.0: firmware: failed to load rtl_nic/b.fw (-2)\n"
        "<4>[    1.3] foo 0000:04:00.0: firmware: failed to load c.fw (-12)\n"
    )
    found = missing_firmware(log)
    assert [finding.subject for finding in found] == ["0000:03:00.0", "0000:04:00.0"]
    assert all(finding.severity is Severity.WARNING for finding in found)
    assert "bnx2/a.fw" in found[0].message


def test_units_that_are_started_again_or_stay_away() -> None:
    pids: dict[str, int | None] = {"a.service": None}
    clock = [0.0]
    units = WatchedUnits(pids.get, {"a.service": "The a"}, monotonic=lambda: clock[0])
    assert not units.poll()
    pids["a.service"] = 10
    assert not units.poll()
    pids["a.service"] = 11
    assert units.poll()
    pids["a.service"] = None
    assert units.poll()
    assert not units.poll()
    assert units.findings() == ()
    clock[0] = 30.0
    (finding,) = units.findings()
    assert (finding.code, finding.subject) == ("unit-not-running", "a.service")
    pids["a.service"] = 12
    units.poll()
    assert units.findings() == ()
