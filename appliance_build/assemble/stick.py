"""Make the stick image: GPT with an ESP (loaders, bank A, BIOS files) and the state partition.

::

    0            protective MBR with syslinux's GPT boot code (BIOS)
    1 MiB        ESP, FAT32, legacy-BIOS-bootable
                   EFI/BOOT/BOOTX64.EFI         systemd-boot
                   EFI/Linux/mica-<version>.efi bank A (UEFI)
                   mica/<version>/{vmlinuz,initrd}  the same for BIOS, read by syslinux
                   loader/loader.conf, syslinux/, mica.toml
    …            mica-state: raw, for the state log; zeros on a fresh stick
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from appliance_build.release.version import SOURCE_DATE_EPOCH
from appliance_build.tools.sandbox import ToolsSandbox

__all__ = ["STATE_TYPE", "StickParts", "write_stick"]

STATE_TYPE = "6d696361-7374-4174-a5e5-0f1d2c3b4a59"
"""The GPT type of the state partition. Never changes: sticks in the field bear it."""

SEED = "6d696361-7365-4564-8000-000000000001"
ESP_BYTES = 640 << 20
STATE_BYTES = 16 << 20
ESP_OFFSET = 1 << 20
MBR_CODE_BYTES = 440
SYSLINUX = "usr/lib/syslinux"

ESP_CONF = """\
[Partition]
Type=esp
Label=mica-esp
Format=vfat
SizeMinBytes={size}
SizeMaxBytes={size}
CopyFiles={tree}:/
"""

STATE_CONF = """\
[Partition]
Type={type}
Label=mica-state
SizeMinBytes={size}
SizeMaxBytes={size}
"""


@dataclass(frozen=True)
class StickParts:
    """The files that make a stick."""

    version: str
    uki: Path
    kernel: Path
    initrd: Path
    microcode: Path | None
    command_line: str
    loader: Path
    """systemd-boot."""
    boot_chain: Path
    """The folder with loader.conf, syslinux.cfg and the example of mica.toml."""


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _esp_tree(parts: StickParts, tree: Path) -> None:
    bios = tree / "mica" / parts.version
    _copy(parts.loader, tree / "EFI/BOOT/BOOTX64.EFI")
    _copy(parts.uki, tree / f"EFI/Linux/mica-{parts.version}.efi")
    _copy(parts.kernel, bios / "vmlinuz")
    _copy(parts.initrd, bios / "initrd")
    _copy(parts.boot_chain / "loader.conf", tree / "loader/loader.conf")
    _copy(parts.boot_chain / "mica.toml.example", tree / "mica.toml")
    initrds = [f"/mica/{parts.version}/initrd"]
    if parts.microcode is not None:
        _copy(parts.microcode, bios / "microcode")
        initrds.insert(0, f"/mica/{parts.version}/microcode")
    template = (parts.boot_chain / "syslinux.cfg").read_text()
    (tree / "syslinux").mkdir()
    (tree / "syslinux/syslinux.cfg").write_text(
        template.replace("@KERNEL@", f"/mica/{parts.version}/vmlinuz")
        .replace("@INITRDS@", ",".join(initrds))
        .replace("@COMMAND_LINE@", parts.command_line)
    )
    for folder, folders, files in os.walk(tree, topdown=False):
        for name in [*folders, *files]:
            os.utime(Path(folder) / name, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH))
    os.utime(tree, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH))


def write_stick(tools: Path, parts: StickParts, target: Path, work: Path) -> None:
    """Write the stick image; ``work`` is a folder for intermediate files."""
    shutil.rmtree(work, ignore_errors=True)
    tree, definitions = work / "esp", work / "repart.d"
    tree.mkdir(parents=True)
    definitions.mkdir()
    _esp_tree(parts, tree)
    (definitions / "10-esp.conf").write_text(ESP_CONF.format(size=ESP_BYTES, tree="/esp"))
    (definitions / "20-state.conf").write_text(STATE_CONF.format(size=STATE_BYTES, type=STATE_TYPE))
    target.unlink(missing_ok=True)
    sandbox = ToolsSandbox(tools, writable=sorted({work, target.parent}))
    env = {"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)}
    sandbox.run(
        [
            "systemd-repart",
            "--empty=create",
            "--size=auto",
            "--offline=yes",
            "--dry-run=no",
            "--sector-size=512",
            f"--seed={SEED}",
            f"--definitions={definitions}",
            f"--copy-source={work}",
            target,
        ],
        timeout_s=600,
        env=env,
    )
    # The mark by which syslinux's boot code finds the partition.
    sandbox.run(
        ["sfdisk", "--quiet", "--part-attrs", target, "1", "LegacyBIOSBootable"], timeout_s=60
    )
    sandbox.run(
        [
            "syslinux",
            f"--offset={ESP_OFFSET}",
            "--directory",
            "/syslinux",
            "--install",
            target,
        ],
        timeout_s=120,
        env=env,
    )
    code = (tools / SYSLINUX / "mbr/gptmbr.bin").read_bytes()
    if len(code) > MBR_CODE_BYTES:
        raise ValueError(f"gptmbr.bin has {len(code)} bytes, the MBR takes {MBR_CODE_BYTES}")
    with target.open("r+b") as file:
        file.write(code)
    shutil.rmtree(work)
