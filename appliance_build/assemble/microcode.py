"""Pack CPU microcode into the early archive that the kernel reads before anything else."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from appliance_build.assemble.cpio import CpioEntry, write_cpio
from appliance_build.release.version import SOURCE_DATE_EPOCH

__all__ = ["intel_updates", "merge_intel", "write_microcode"]

INTEL_HEADER = struct.Struct("<IiIIIIIII12x")
"""Header version, revision, date, signature, checksum, loader, flags, data size, total size."""
INTEL_OLD_TOTAL = 2048


def intel_updates(data: bytes) -> Iterator[tuple[tuple[int, int], int, bytes]]:
    """Take an Intel file apart: ``((signature, processor flags), revision, update)``."""
    offset = 0
    while offset < len(data):
        if len(data) - offset < INTEL_HEADER.size:
            raise ValueError(f"{len(data) - offset} stray bytes at the end of Intel microcode")
        version, revision, _, signature, _, _, flags, _, total = INTEL_HEADER.unpack_from(
            data, offset
        )
        total = total or INTEL_OLD_TOTAL
        if version != 1 or offset + total > len(data):
            raise ValueError(f"no Intel microcode header at offset {offset}")
        yield (signature, flags), revision, data[offset : offset + total]
        offset += total


def merge_intel(files: Sequence[bytes]) -> bytes:
    """Join files to one, each processor's newest update once (files share many of them)."""
    newest: dict[tuple[int, int], tuple[int, bytes]] = {}
    for data in files:
        for processor, revision, update in intel_updates(data):
            if processor not in newest or newest[processor][0] < revision:
                newest[processor] = (revision, update)
    return b"".join(newest[processor][1] for processor in sorted(newest))


def write_microcode(target: Path, files: Sequence[Path]) -> None:
    """Write the archive with one file a vendor, as far as ``files`` has parts of it."""
    parts: dict[str, list[bytes]] = {"amd-ucode": [], "intel-ucode": []}
    for path in sorted(files):
        if path.parent.name in parts:
            parts[path.parent.name].append(path.read_bytes())
    entries = [CpioEntry.folder(path) for path in ("kernel", "kernel/x86", "kernel/x86/microcode")]
    if parts["amd-ucode"]:
        content = b"".join(parts["amd-ucode"])
        entries.append(CpioEntry.bytes("kernel/x86/microcode/AuthenticAMD.bin", content))
    if parts["intel-ucode"]:
        content = merge_intel(parts["intel-ucode"])
        entries.append(CpioEntry.bytes("kernel/x86/microcode/GenuineIntel.bin", content))
    write_cpio(target, entries, epoch=SOURCE_DATE_EPOCH)
