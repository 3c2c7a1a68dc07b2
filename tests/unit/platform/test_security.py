"""What a kernel enforces, read from a made-up /proc and /sys, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.platform.sample_tree import SampleMachine
from vmkernel.model import SecurityInfo, Severity
from vmkernel.platform.security import security_findings, security_info

STRONG = {
    "sys/kernel/security/lockdown": "none integrity [confidentiality]",
    "sys/kernel/security/lsm": "capability,lockdown,yama,landlock",
    "sys/module/module/parameters/sig_enforce": "Y",
    "sys/module/usbcore/parameters/authorized_default": "0",
    "sys/devices/system/cpu/smt/control": "off",
    "sys/devices/system/cpu/smt/active": "0",
    "sys/devices/system/cpu/vulnerabilities/meltdown": "Not affected",
    "sys/devices/system/cpu/vulnerabilities/spectre_v1": "Mitigation: usercopy",
    "sys/class/iommu/dmar0/x": "",
    "sys/kernel/iommu_groups/0/type": "DMA",
    "proc/sys/kernel/modules_disabled": "0",
    "proc/sys/kernel/kexec_load_disabled": "1",
    "proc/sys/kernel/unprivileged_userns_clone": "0",
    "proc/sys/kernel/io_uring_disabled": "2",
    "proc/sys/user/max_user_namespaces": "4096",
    "proc/sys/vm/memfd_noexec": "2",
}


@pytest.fixture
def machine(tmp_path: Path) -> SampleMachine:
    """A machine with everything that is intended in force."""
    machine = SampleMachine(tmp_path)
    for path, text in STRONG.items():
        machine.write(path, text + "\n")
    return machine


def read(machine: SampleMachine) -> SecurityInfo:
    """What is in force there."""
    return security_info(proc=machine.proc, sys=machine.sys)


def test_everything_in_force_is_read_and_gives_no_finding(machine: SampleMachine) -> None:
    info = read(machine)
    assert msgspec.json.decode(msgspec.json.encode(info)) == {
        "lockdown": "confidentiality",
        "security_modules": ["capability", "lockdown", "yama", "landlock"],
        "secure_boot": False,
        "module_signatures_enforced": True,
        "modules_locked": False,
        "kexec_disabled": True,
        "unprivileged_user_namespaces": False,
        "io_uring": "disabled",
        "executable_memfd": "refused",
        "usb_devices": "listed",
        "iommu": "strict",
        "smt": "off",
        "smt_active": False,
        "cpu_mitigations": {"spectre_v1": "Mitigation: usercopy"},
        "cpu_vulnerabilities": [],
    }
    assert list(security_findings(info)) == []


@pytest.mark.parametrize(
    ("path", "text", "field", "value", "code", "severity"),
    [
        (
            *("sys/kernel/security/lockdown", "none [integrity] confidentiality"),
            *("lockdown", "integrity", "kernel-not-locked-down", Severity.WARNING),
        ),
        (
            *("sys/module/module/parameters/sig_enforce", "N", "module_signatures_enforced"),
            *(False, "module-signatures-not-enforced", Severity.WARNING),
        ),
        (
            *("proc/sys/kernel/kexec_load_disabled", "0", "kexec_disabled"),
            *(False, "kexec-allowed", Severity.WARNING),
        ),
        (
            *("proc/sys/kernel/unprivileged_userns_clone", "1", "unprivileged_user_namespaces"),
            *(True, "user-namespaces-allowed", Severity.WARNING),
        ),
        (
            *("proc/sys/kernel/io_uring_disabled", "0", "io_uring"),
            *("allowed", "io-uring-allowed", Severity.WARNING),
        ),
        (
            *("proc/sys/vm/memfd_noexec", "0", "executable_memfd"),
            *("allowed", "executable-memfd-allowed", Severity.WARNING),
        ),
        (
            *("sys/module/usbcore/parameters/authorized_default", "-1", "usb_devices"),
            *("all", "usb-devices-unrestricted", Severity.WARNING),
        ),
        (
            *("sys/kernel/iommu_groups/7/type", "identity", "iommu"),
            *("passthrough", "devices-reach-all-memory", Severity.INFO),
        ),
        (
            *("sys/devices/system/cpu/smt/active", "1", "smt_active"),
            *(True, "smt-shared-cores", Severity.INFO),
        ),
        (
            *("sys/devices/system/cpu/vulnerabilities/mds", "Vulnerable: no microcode"),
            *("cpu_vulnerabilities", ("mds",), "cpu-vulnerable", Severity.WARNING),
        ),
    ],
)
def test_each_weakness_is_read_and_is_one_finding(
    machine: SampleMachine,
    path: str,
    text: str,
    field: str,
    value: Any,
    code: str,
    severity: Severity,
) -> None:
    machine.write(path, text + "\n")
    info = read(machine)
    assert getattr(info, field) == value
    assert [(f.code, f.severity) for f in security_findings(info)] == [(code, severity)]


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    """Another kernel, or a container: nothing is claimed, and nothing raises."""
    info = read(SampleMachine(tmp_path))
    assert (info.lockdown, info.kexec_disabled, info.unprivileged_user_namespaces) == (None,) * 3
    assert (info.iommu, info.security_modules, info.smt_active) == ("none", (), None)
    codes = {finding.code for finding in security_findings(info)}
    assert {"kernel-not-locked-down", "module-signatures-not-enforced", "kexec-allowed"} <= codes


@pytest.mark.parametrize(
    ("clone", "most", "allowed"),
    [("1", "100", True), ("1", "0", False), (None, "100", True), (None, "0", False)],
)
def test_user_namespaces_are_off_by_either_switch(
    machine: SampleMachine, clone: str | None, most: str, allowed: bool
) -> None:
    path = machine.write("proc/sys/kernel/unprivileged_userns_clone", clone or "")
    if clone is None:
        path.unlink()
    machine.write("proc/sys/user/max_user_namespaces", most)
    assert read(machine).unprivileged_user_namespaces is allowed


def test_lazy_unmapping_is_no_finding(machine: SampleMachine) -> None:
    machine.write("sys/kernel/iommu_groups/1/type", "DMA-FQ")
    info = read(machine)
    assert info.iommu == "lazy"
    assert list(security_findings(info)) == []
