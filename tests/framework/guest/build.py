"""Make the guest in all its forms; what is made is kept by the hash of what it was made of."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from appliance_build.assemble.cpio import CpioEntry, write_cpio
from appliance_build.assemble.uki import UkiParts, write_uki
from appliance_build.tools.sandbox import ToolsSandbox
from tests.framework import inputs
from tests.framework.guest.modules import GUEST_MODULES, ModuleSet
from tests.framework.guest.vmlinux import extract_vmlinux

__all__ = ["COMMAND_LINE", "GuestFiles", "TYPE_ESP", "blank_disk", "guest_files", "make_fat"]

HERE = Path(__file__).parent
COMMAND_LINE = "console=ttyS0 quiet panic=-1"
EPOCH = 1_700_000_000
MIB = 1 << 20
DISK_BYTES = 32 * MIB
PARTITION_SECTOR = 2048
SECTOR_BYTES = 512
TYPE_ESP = 0xEF
TYPE_FAT32_LBA = 0x0C
OS_RELEASE = 'ID=mica-test-guest\nNAME="Mica test guest"\nVERSION_ID=1\n'


@dataclass(frozen=True)
class GuestFiles:
    """The forms of the guest."""

    kernel: Path
    """Debian's bzImage."""
    vmlinux: Path
    """The same kernel, uncompressed (ELF, starts by PVH): large, but quick to start."""
    initrd: Path
    bios_disk: Path
    """Raw disk with an MBR, FAT and syslinux."""
    uefi_disk: Path
    """Raw disk with an MBR and an EFI system partition."""
    uki: Path
    init: Path
    """The guest's program, which measures a file's speed on any Linux, too."""


def guest_files() -> GuestFiles:
    """Every form of the guest, made now if it is not there yet."""
    sources = sorted(HERE.glob("*.[chp]*"))
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.read_bytes())
    digest.update(f"{inputs.kernel_release()} {inputs.tools()}".encode())
    with inputs.making("guest") as work:
        return _made(work / digest.hexdigest()[:16])


def _made(folder: Path) -> GuestFiles:
    files = GuestFiles(
        kernel=folder / "vmlinuz",
        vmlinux=folder / "vmlinux",
        initrd=folder / "initrd",
        bios_disk=folder / "bios.img",
        uefi_disk=folder / "uefi.img",
        uki=folder / "guest.efi",
        init=folder / "init",
    )
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _make(files, folder)
        (folder / "complete").touch()
    return files


def _make(files: GuestFiles, folder: Path) -> None:
    tools, donor = inputs.tools(), inputs.donor()
    release = inputs.kernel_release()
    source = _kernel_image(donor, release)
    shutil.copyfile(source, files.kernel)
    extract_vmlinux(tools, files.kernel, files.vmlinux)
    _compile(tools, files.init)
    _write_initrd(files.initrd, files.init, ModuleSet(donor / "usr/lib/modules" / release))
    _write_bios_disk(files, tools, folder)
    _write_uefi_disk(files, tools, folder, release)


def _compile(tools: Path, target: Path) -> None:
    sandbox = ToolsSandbox(tools, readable=[HERE], writable=[target.parent])
    flags = ["-std=gnu17", "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror"]
    argv: list[str | Path] = ["gcc", *flags, "-o", target, *sorted(HERE.glob("*.c"))]
    sandbox.run(argv, timeout_s=120)


def _kernel_image(donor: Path, release: str) -> Path:
    for candidate in (
        donor / "boot" / f"vmlinuz-{release}",
        donor / "usr/lib/modules" / release / "vmlinuz",
    ):
        if candidate.is_file():
            return candidate
    raise inputs.MissingInputError(f"the donor tree has no kernel image for {release}")


def _write_initrd(target: Path, init: Path, modules: ModuleSet) -> None:
    entries = [
        CpioEntry.folder("dev"),
        CpioEntry.folder("modules"),
        CpioEntry.file("init", init, 0o755),
        CpioEntry.bytes("modules/index", modules.index(GUEST_MODULES).encode()),
    ]
    for path in modules.files(GUEST_MODULES):
        entries.append(CpioEntry.file(f"modules/{path.name}", path))
    write_cpio(target, entries, epoch=EPOCH)


def blank_disk(target: Path, partition_type: int, boot_code: bytes = b"") -> None:
    """A disk with an MBR and one active partition from 1 MiB to its end."""
    sectors = DISK_BYTES // SECTOR_BYTES - PARTITION_SECTOR
    entry = (
        bytes([0x80, 0xFE, 0xFF, 0xFF, partition_type, 0xFE, 0xFF, 0xFF])
        + PARTITION_SECTOR.to_bytes(4, "little")
        + sectors.to_bytes(4, "little")
    )
    signature = b"MICA"
    mbr = boot_code.ljust(440, b"\0") + signature + b"\0\0" + entry.ljust(64, b"\0") + b"\x55\xaa"
    with target.open("wb") as file:
        file.truncate(DISK_BYTES)
        file.write(mbr)


def make_fat(sandbox: ToolsSandbox, disk: Path, folders: list[str], files: dict[str, Path]) -> None:
    """The file system of a disk's partition, with these folders and files."""
    partition = f"{disk}@@{PARTITION_SECTOR * SECTOR_BYTES}"
    sectors = DISK_BYTES // SECTOR_BYTES - PARTITION_SECTOR
    geometry = ["-T", str(sectors), "-h", "64", "-s", "32", "-H", str(PARTITION_SECTOR)]
    # -H: the sectors before the partition, which syslinux's boot sector adds to what it reads.
    sandbox.run(["mformat", "-i", partition, *geometry, "-N", "4d494341", "::"], timeout_s=60)
    for folder in folders:
        sandbox.run(["mmd", "-i", partition, f"::{folder}"], timeout_s=60)
    for name, path in files.items():
        sandbox.run(["mcopy", "-i", partition, path, f"::{name}"], timeout_s=60)


def _write_bios_disk(files: GuestFiles, tools: Path, folder: Path) -> None:
    sandbox = ToolsSandbox(tools, writable=[folder])
    config = folder / "syslinux.cfg"
    config.write_text(
        "DEFAULT guest\nLABEL guest\nLINUX /vmlinuz\nINITRD /initrd\n"
        f"APPEND {COMMAND_LINE} mica.tag=bios-disk\n"
    )
    code = (tools / "usr/lib/syslinux/mbr/mbr.bin").read_bytes()
    blank_disk(files.bios_disk, TYPE_FAT32_LBA, code)
    content = {"/vmlinuz": files.kernel, "/initrd": files.initrd, "/syslinux.cfg": config}
    make_fat(sandbox, files.bios_disk, [], content)
    offset = PARTITION_SECTOR * SECTOR_BYTES
    sandbox.run(["syslinux", f"--offset={offset}", "--install", files.bios_disk], timeout_s=60)


def _write_uefi_disk(files: GuestFiles, tools: Path, folder: Path, release: str) -> None:
    os_release = folder / "os-release"
    os_release.write_text(OS_RELEASE)
    parts = UkiParts(
        stub=tools / "usr/lib/systemd/boot/efi/linuxx64.efi.stub",
        kernel=files.kernel,
        kernel_release=release,
        command_line=f"{COMMAND_LINE} mica.tag=uefi-disk",
        os_release=os_release,
        initrd=files.initrd,
        microcode=None,
    )
    write_uki(tools, parts, files.uki)
    blank_disk(files.uefi_disk, TYPE_ESP)
    sandbox = ToolsSandbox(tools, writable=[folder])
    content = {"/EFI/BOOT/BOOTX64.EFI": files.uki}
    make_fat(sandbox, files.uefi_disk, ["/EFI", "/EFI/BOOT"], content)
