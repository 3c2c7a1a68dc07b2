"""How the CLI puts what a host's kernel enforces."""

from __future__ import annotations

from typing import Any

import msgspec

from remote_api.client.cli.security_text import security_text
from vmkernel.model import SecurityInfo

SILENT: dict[str, Any] = {
    "lockdown": None,
    "security_modules": (),
    "secure_boot": False,
    "module_signatures_enforced": None,
    "modules_locked": None,
    "kexec_disabled": None,
    "unprivileged_user_namespaces": None,
    "io_uring": None,
    "executable_memfd": None,
    "usb_devices": None,
    "iommu": "none",
    "smt": None,
    "smt_active": None,
    "cpu_mitigations": {},
    "cpu_vulnerabilities": (),
}


def test_what_a_host_does_not_know_is_left_out() -> None:
    assert security_text(SecurityInfo(**SILENT)) == "IOMMU none, no Secure Boot"


def test_strong_and_weak_hosts_read_differently_in_every_phrase() -> None:
    known = {"lockdown": "confidentiality", "io_uring": "disabled", "usb_devices": "listed"}
    switches = ("module_signatures_enforced", "kexec_disabled", "smt_active", "secure_boot")
    info = msgspec.structs.replace(
        SecurityInfo(**SILENT), **known, unprivileged_user_namespaces=False
    )
    strong = security_text(msgspec.structs.replace(info, **dict.fromkeys(switches, True)))
    assert strong == (
        "lockdown confidentiality, signed modules only, no kexec, "
        "no user namespaces without privileges, io_uring disabled, USB devices: listed, "
        "IOMMU none, SMT on, Secure Boot"
    )
    weak = security_text(
        msgspec.structs.replace(
            info,
            **dict.fromkeys(switches, False),
            modules_locked=True,
            cpu_vulnerabilities=("mds", "l1tf"),
        )
    )
    assert "unsigned modules allowed, modules locked, kexec allowed" in weak
    assert "SMT off, CPU vulnerable to mds, l1tf, no Secure Boot" in weak
