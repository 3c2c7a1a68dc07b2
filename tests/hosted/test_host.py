"""What the host says of itself where it is an ordinary program."""

from __future__ import annotations

from pathlib import Path

from remote_api.client.sdk import Mica


def test_it_reports_what_this_kernel_enforces_and_finds_no_fault_with_it(mica: Mica) -> None:
    """The machine belongs to someone else, who configured it on purpose."""
    status = mica.host().status
    kernel = Path("/proc/sys/kernel")
    locked = (kernel / "modules_disabled", kernel / "kexec_load_disabled")
    shown = (status.security.modules_locked, status.security.kexec_disabled)
    for path, value in zip(locked, shown, strict=True):
        assert value == (path.read_text().strip() == "1" if path.exists() else None)
    bugs = Path("/sys/devices/system/cpu/vulnerabilities")
    open_to = {
        bug.name for bug in bugs.glob("*") if bug.read_text().strip().startswith("Vulnerable")
    }
    assert set(status.security.cpu_vulnerabilities) == open_to
    codes = {finding.code for finding in status.findings}
    assert not codes & {"kernel-not-locked-down", "kexec-allowed", "smt-shared-cores"}
