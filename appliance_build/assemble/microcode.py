"""Pack CPU microcode into the early archive that the kernel reads before anything else."""

from collections.abc import Sequence
from pathlib import Path

from appliance_build.assemble.cpio import CpioEntry, write_cpio
from appliance_build.release.version import SOURCE_DATE_EPOCH

__all__ = ["write_microcode"]

VENDORS = {"amd-ucode": "AuthenticAMD.bin", "intel-ucode": "GenuineIntel.bin"}
INTEL_ALIGNMENT = 16


def write_microcode(target: Path, files: Sequence[Path]) -> None:
    """Write the archive: per vendor one file, its parts in the order of their names."""
    entries = [CpioEntry.folder(path) for path in ("kernel", "kernel/x86", "kernel/x86/microcode")]
    for folder, name in VENDORS.items():
        parts = sorted(path for path in files if path.parent.name == folder)
        content = bytearray()
        for path in parts:
            content += path.read_bytes()
            content += b"\0" * (-len(content) % INTEL_ALIGNMENT if folder == "intel-ucode" else 0)
        if content:
            entries.append(CpioEntry.bytes(f"kernel/x86/microcode/{name}", bytes(content)))
    write_cpio(target, entries, epoch=SOURCE_DATE_EPOCH)
