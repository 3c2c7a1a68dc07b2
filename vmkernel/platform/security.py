"""What the running kernel enforces, as it reports, and what is weaker than intended.

Intended is what firmware/boot_chain/kernel_command_line.toml and sysctl.d/50-mica.conf ask for. An
administrator can't change either; a difference means another command line, or a kernel or machine
that doesn't support it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vmkernel.host.efi import secure_boot
from vmkernel.host.sysfs import PROC, SYS, read_int, read_text, subfolders
from vmkernel.model import Finding, SecurityInfo, Severity

__all__ = ["security_findings", "security_info"]

_IO_URING = {0: "allowed", 1: "privileged", 2: "disabled"}
_MEMFD = {0: "allowed", 1: "on-request", 2: "refused"}
_USB = {0: "listed", 1: "all", 2: "internal", -1: "all"}
"""usbcore's authorized_default; with 0 the image's udev rules admit the listed devices."""
_NOT_AFFECTED = "Not affected"
_VULNERABLE = "Vulnerable"


def security_info(*, proc: Path = PROC, sys: Path = SYS) -> SecurityInfo:
    """What is enforced; None for what this kernel doesn't report."""
    kernel = proc / "sys/kernel"
    bugs = {
        name: read_text(sys / "devices/system/cpu/vulnerabilities" / name) or "Unknown"
        for name in subfolders(sys / "devices/system/cpu/vulnerabilities")
    }
    return SecurityInfo(
        lockdown=_chosen(read_text(sys / "kernel/security/lockdown")),
        security_modules=tuple(
            filter(None, (read_text(sys / "kernel/security/lsm") or "").split(","))
        ),
        secure_boot=secure_boot(sys),
        module_signatures_enforced=_switch(sys / "module/module/parameters/sig_enforce"),
        modules_locked=_switch(kernel / "modules_disabled"),
        kexec_disabled=_switch(kernel / "kexec_load_disabled"),
        unprivileged_user_namespaces=_user_namespaces(proc),
        io_uring=_named(_IO_URING, kernel / "io_uring_disabled"),
        executable_memfd=_named(_MEMFD, proc / "sys/vm/memfd_noexec"),
        usb_devices=_named(_USB, sys / "module/usbcore/parameters/authorized_default"),
        iommu=_iommu(sys),
        smt=read_text(sys / "devices/system/cpu/smt/control"),
        smt_active=_switch(sys / "devices/system/cpu/smt/active"),
        cpu_mitigations={
            name: text for name, text in bugs.items() if not text.startswith(_NOT_AFFECTED)
        },
        cpu_vulnerabilities=tuple(
            name for name, text in bugs.items() if text.startswith(_VULNERABLE)
        ),
    )


def security_findings(info: SecurityInfo) -> Iterator[Finding]:
    """What is weaker than intended, in the appliance."""
    if info.lockdown != "confidentiality":
        yield _weak(
            "kernel-not-locked-down",
            f"The kernel's lockdown is {info.lockdown or 'missing'} instead of confidentiality",
        )
    if not info.module_signatures_enforced:
        yield _weak("module-signatures-not-enforced", "The kernel loads unsigned modules")
    if not info.kexec_disabled:
        yield _weak("kexec-allowed", "The kernel can be replaced while it runs (kexec)")
    if info.unprivileged_user_namespaces:
        yield _weak("user-namespaces-allowed", "Any process can create user namespaces")
    if info.io_uring == "allowed":
        yield _weak("io-uring-allowed", "Any process can use io_uring, which bypasses seccomp")
    if info.executable_memfd == "allowed":
        yield _weak("executable-memfd-allowed", "Files that exist only in memory can be executed")
    if info.usb_devices != "listed":
        yield _weak("usb-devices-unrestricted", "The kernel accepts USB devices of every kind")
    if info.cpu_vulnerabilities:
        yield Finding(
            code="cpu-vulnerable",
            severity=Severity.WARNING,
            message=(
                f"The CPU is vulnerable to {', '.join(info.cpu_vulnerabilities)}; newer "
                "firmware or microcode may fix this. Until then, run only guests that trust "
                "each other on this host."
            ),
        )
    if info.smt_active:
        yield Finding(
            code="smt-shared-cores",
            severity=Severity.INFO,
            message=(
                "Two guests may share a CPU core, because SMT is on and the kernel has no "
                "core scheduling; if guests don't trust each other, disable SMT in the "
                "firmware set-up."
            ),
        )
    if info.iommu in ("none", "passthrough"):
        why = "no IOMMU is active" if info.iommu == "none" else "the IOMMU lets them through"
        yield Finding(
            code="devices-reach-all-memory",
            severity=Severity.INFO,
            message=(
                f"A device can access all of the host's memory, because {why}; enable the "
                "IOMMU in the firmware set-up (VT-d or AMD-Vi) if the machine has one."
            ),
        )


def _weak(code: str, what: str) -> Finding:
    return Finding(
        code=code,
        severity=Severity.WARNING,
        message=f"{what}; start the host from Mica's own boot entry.",
    )


def _chosen(text: str | None) -> str | None:
    """The word in brackets of `none [integrity] confidentiality`."""
    words = [word for word in (text or "").split() if word.startswith("[")]
    return words[0].strip("[]") if words else None


def _switch(path: Path) -> bool | None:
    text = read_text(path)
    return text in ("1", "Y") if text in ("0", "1", "Y", "N") else None


def _named(names: dict[int, str], path: Path) -> str | None:
    number = read_int(path)
    return None if number is None else names.get(number, str(number))


def _user_namespaces(proc: Path) -> bool | None:
    """Whether a process without privileges may make one (Debian's switch, then the count)."""
    allowed = _switch(proc / "sys/kernel/unprivileged_userns_clone")
    most = read_int(proc / "sys/user/max_user_namespaces")
    if allowed is False or most == 0:
        return False
    return None if allowed is None and most is None else True


def _iommu(sys: Path) -> str:
    """`strict` or `lazy` (devices reach what their driver gave them; that ends at once, or a
    moment later), `passthrough` or `none`."""
    if not subfolders(sys / "class/iommu"):
        return "none"
    groups = sys / "kernel/iommu_groups"
    kinds = {read_text(groups / number / "type") for number in subfolders(groups)}
    if not kinds or "identity" in kinds:
        return "passthrough"
    return "lazy" if "DMA-FQ" in kinds else "strict"
