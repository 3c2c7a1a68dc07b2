"""What a host's kernel enforces, in a few phrases."""

from __future__ import annotations

from vmkernel.model import SecurityInfo

__all__ = ["security_text"]


def security_text(info: SecurityInfo) -> str:
    """One line; what the host doesn't know is left out."""
    phrases = [
        f"lockdown {info.lockdown}" if info.lockdown else None,
        _either(info.module_signatures_enforced, "signed modules only", "unsigned modules allowed"),
        _either(info.modules_locked, "modules locked", None),
        _either(info.kexec_disabled, "no kexec", "kexec allowed"),
        _either(
            info.unprivileged_user_namespaces,
            "user namespaces for everyone",
            "no user namespaces without privileges",
        ),
        f"io_uring {info.io_uring}" if info.io_uring else None,
        f"executable memfd {info.executable_memfd}" if info.executable_memfd else None,
        f"USB devices: {info.usb_devices}" if info.usb_devices else None,
        f"IOMMU {info.iommu}",
        _either(info.smt_active, "SMT on", "SMT off"),
        f"CPU vulnerable to {', '.join(info.cpu_vulnerabilities)}"
        if info.cpu_vulnerabilities
        else None,
        "Secure Boot" if info.secure_boot else "no Secure Boot",
    ]
    return ", ".join(phrase for phrase in phrases if phrase)


def _either(value: bool | None, yes: str | None, no: str | None) -> str | None:
    return None if value is None else yes if value else no
