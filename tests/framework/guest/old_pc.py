"""The guest of an old PC (old_pc/main.c): a disk of a few sectors that a BIOS starts from IDE."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from appliance_build.tools.sandbox import ToolsSandbox
from tests.framework import inputs

__all__ = ["OLD_PC_TEXT", "WRITTEN_OFFSET", "bare_disk", "old_pc_disk", "old_pc_lacks"]

SOURCES = Path(__file__).parent / "old_pc"
SECTOR_BYTES = 512
TEXT_SECTOR = 64
OLD_PC_TEXT = "read from an IDE disk without an operating system"
"""What it reads and says; it writes the same, turned around, to the next sector."""
WRITTEN_OFFSET = (TEXT_SECTOR + 1) * SECTOR_BYTES
DISK_BYTES = 1 << 20


def old_pc_disk() -> Path:
    """The disk, made now if it is not there yet."""
    return bare_disk("old-pc", SOURCES / "main.c")


def bare_disk(name: str, program: Path) -> Path:
    """A disk that starts a program without an operating system, made now if it is not there yet."""
    sources = [SOURCES / "start.S", program]
    digest = hashlib.sha256(str(inputs.tools()).encode())
    for path in (Path(__file__), SOURCES / "link.ld", *sources):
        digest.update(path.read_bytes())
    with inputs.making("guest") as work:
        disk = work / f"{name}-{digest.hexdigest()[:16]}" / "disk.img"
        if not disk.exists():
            _make(disk, sources)
    return disk


def _make(disk: Path, sources: list[Path]) -> None:
    disk.parent.mkdir(exist_ok=True)
    sectors = _assembled(disk.parent, sources).ljust(TEXT_SECTOR * SECTOR_BYTES, b"\0")
    assert len(sectors) == TEXT_SECTOR * SECTOR_BYTES, "the program runs into its text"
    made = disk.with_name("making.img")
    made.write_bytes((sectors + OLD_PC_TEXT.encode()).ljust(DISK_BYTES, b"\0"))
    made.rename(disk)


def old_pc_lacks(said: str, mac: str) -> list[str]:
    """What it should have said and hasn't, as patterns; `mac` is that of its card."""
    wanted = (
        r"MICA OLD PC cr0 [89a-f]\w{6}1 efer 0",
        r"timer \d+",
        rf"ide QEMU HARDDISK serial \S+ sectors {DISK_BYTES // SECTOR_BYTES}",
        f"ide read: {OLD_PC_TEXT}",
        f"ide wrote: {OLD_PC_TEXT[::-1]}",
        f"e1000 {mac}",
        "e1000 10.0.2.2 is at [0-9a-f:]{17}",
    )
    return [line for line in wanted if not re.search(rf"(?m)^{line}\s*$", said)]


def _assembled(folder: Path, sources: list[Path]) -> bytes:
    program = folder / "program"
    flags = ["-m32", "-march=i486", "-std=gnu17", "-Os", "-Wall", "-Wextra", "-Werror"]
    flags += ["-ffreestanding", "-fno-pic", "-fno-stack-protector", "-mgeneral-regs-only"]
    flags += ["-fno-asynchronous-unwind-tables", "-nostdlib", "-static", "-no-pie"]
    linker = ["-Wl,--build-id=none,--oformat=binary,--no-warn-rwx-segments"]
    linker += ["-T", str(SOURCES / "link.ld")]
    argv: list[str | Path] = [
        "gcc",
        *flags,
        *linker,
        "-o",
        program,
        *sources,
    ]
    readable = [SOURCES, *{source.parent for source in sources}]
    sandbox = ToolsSandbox(inputs.tools(), readable=readable, writable=[folder])
    sandbox.run(argv, timeout_s=60)
    return program.read_bytes()
