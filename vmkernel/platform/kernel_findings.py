"""Findings that only the kernel's log knows."""

from __future__ import annotations

import re

from vmkernel.model import Finding, Severity

__all__ = ["missing_firmware"]

_MISSING = re.compile(
    r"(?:(?P<driver>[\w-]+) (?P<device>[0-9a-fx:.-]+): )?"
    r"(?:Direct firmware load for |firmware: failed to load )(?P<file>\S+?)"
    r"(?: failed with error -2\b| \(-2\))"
)


def missing_firmware(log: str) -> tuple[Finding, ...]:
    """One finding a file that a driver asked for and that the image doesn't have."""
    found: dict[str, Finding] = {}
    for match in _MISSING.finditer(log):
        file, device = match["file"], match["device"]
        whose = f"{match['driver']} for {device}" if device else "a driver"
        found.setdefault(
            file,
            Finding(
                code="missing-firmware",
                severity=Severity.WARNING,
                message=f"Firmware file {file}, requested by {whose}, is not in this image.",
                subject=device,
            ),
        )
    return tuple(found.values())
