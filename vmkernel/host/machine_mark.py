"""An identifier that distinguishes this machine from another one with the same
stick (or a copy).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from vmkernel.host.sysfs import SYS, read_text

__all__ = ["machine_mark"]

_FIELDS = ("product_uuid", "product_serial", "board_serial")


def machine_mark(sys: Path = SYS, *, fallback: Path | None = None) -> str:
    """A hash of what the firmware reports about the machine (SMBIOS), or else of the file
    `fallback`; empty if there is neither.
    """
    told = [read_text(sys / "class/dmi/id" / name) or "" for name in _FIELDS]
    if not any(told) and fallback is not None:
        told = [read_text(fallback) or ""]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16] if any(told) else ""
