"""UEFI variables that the boot loader left for the system it started (read only)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmkernel.host.sysfs import SYS

__all__ = ["LoaderVariables", "booted_by_uefi", "loader_variables", "secure_boot"]

_LOADER = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""The vendor GUID of the Boot Loader Interface."""
_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_ATTRIBUTES_BYTES = 4


@dataclass(frozen=True)
class LoaderVariables:
    """What systemd-boot reported; None for each that it did not."""

    partition_uuid: str | None
    """The GPT GUID of the partition that it was started from, lower case."""
    entry: str | None
    """The boot entry that it chose, such as `mica-0.1.0+2-1.efi`."""
    started_s: float | None
    """Seconds from the firmware's start to the loader's."""
    handed_over_s: float | None
    """Seconds from the firmware's start to the kernel's."""


def booted_by_uefi(sys: Path = SYS) -> bool:
    """True if the kernel was started by UEFI, False for a legacy BIOS."""
    return (sys / "firmware/efi").is_dir()


def secure_boot(sys: Path = SYS) -> bool:
    """True if the firmware enforced signatures."""
    data = _read(sys, f"SecureBoot-{_GLOBAL}")
    return data is not None and data[:1] == b"\1"


def loader_variables(sys: Path = SYS) -> LoaderVariables:
    partition = _text(sys, "LoaderDevicePartUUID")
    return LoaderVariables(
        partition_uuid=partition.lower() if partition else None,
        entry=_text(sys, "LoaderEntrySelected"),
        started_s=_seconds(sys, "LoaderTimeInitUSec"),
        handed_over_s=_seconds(sys, "LoaderTimeExecUSec"),
    )


def _read(sys: Path, name: str) -> bytes | None:
    try:
        data = (sys / "firmware/efi/efivars" / name).read_bytes()
    except OSError:
        return None
    return data[_ATTRIBUTES_BYTES:]


def _text(sys: Path, name: str) -> str | None:
    data = _read(sys, f"{name}-{_LOADER}")
    if data is None:
        return None
    return data.decode("utf-16-le", errors="replace").rstrip("\0") or None


def _seconds(sys: Path, name: str) -> float | None:
    text = _text(sys, name)
    return int(text) / 1e6 if text and text.isdigit() else None
