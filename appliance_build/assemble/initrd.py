"""Make the initrd: the static init, the modules it loads, and the root image as one file.

It is stored uncompressed: nearly all of it is the root image, which is compressed already.
"""

import lzma
from collections.abc import Sequence
from pathlib import Path

from appliance_build.assemble.cpio import CpioEntry, write_cpio
from appliance_build.release.version import SOURCE_DATE_EPOCH
from appliance_build.tools.sandbox import ToolsSandbox

__all__ = ["EARLY_MODULES", "check_kernel", "compile_init", "early_name", "write_initrd"]

EARLY_MODULES = ("crc32c_intel", "crc32c_generic", "erofs", "overlay")
"""What init itself needs; everything else is loaded by udev from the root image."""

KERNEL_OPTIONS = ("CONFIG_EROFS_FS_BACKED_BY_FILE", "CONFIG_EROFS_FS_ZIP_ZSTD")
"""What init counts on: the kernel mounts the root image as the file that it is."""


def check_kernel(config: Path) -> None:
    """Refuse a kernel that init can't start; `config` is the file of its build options."""
    lines = set(config.read_text().splitlines())
    missing = [option for option in KERNEL_OPTIONS if f"{option}=y" not in lines]
    if missing:
        raise ValueError(f"{config.name}: the kernel lacks {', '.join(missing)}")


def early_name(number: int, module: Path) -> str:
    """The path in the initrd of the `number`th module to load."""
    return f"modules/{number:02}-{module.name.split('.')[0]}.ko"


def compile_init(tools: Path, source: Path, target: Path) -> None:
    """Compile a static init of one C file."""
    sandbox = ToolsSandbox(tools, readable=[source.parent], writable=[target.parent])
    sandbox.run(
        [
            "gcc",
            "-std=gnu17",
            "-Os",
            "-static",
            "-s",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fno-ident",
            "-Wl,--build-id=none",
            "-Wl,-z,noexecstack",
            f"-ffile-prefix-map={source.parent}=.",
            "-o",
            target,
            source,
        ],
        timeout_s=120,
        env={"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)},
    )


def _module(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def write_initrd(target: Path, *, init: Path, modules: Sequence[Path], root_image: Path) -> None:
    """Write the archive; the modules are loaded in the order given."""
    entries = [
        CpioEntry.folder("dev"),
        CpioEntry.folder("proc"),
        CpioEntry.folder("sys"),
        CpioEntry.folder("modules"),
        CpioEntry.file("init", init, 0o755),
    ]
    for number, path in enumerate(modules):
        entries.append(CpioEntry.bytes(early_name(number, path), _module(path)))
    entries.append(CpioEntry.file("root.erofs", root_image))
    write_cpio(target, entries, epoch=SOURCE_DATE_EPOCH)
