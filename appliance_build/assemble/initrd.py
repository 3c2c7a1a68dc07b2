"""Make the initrd: the static init, the modules it loads, and the root image as one file.

It is stored uncompressed: nearly all of it is the root image, which is compressed already.
"""

import lzma
from collections.abc import Sequence
from pathlib import Path

from appliance_build.assemble.cpio import CpioEntry, write_cpio
from appliance_build.release.version import SOURCE_DATE_EPOCH
from appliance_build.tools.sandbox import ToolsSandbox

__all__ = ["EARLY_MODULES", "compile_init", "write_initrd"]

EARLY_MODULES = ("crc32c_intel", "crc32c_generic", "erofs", "overlay", "loop")
"""What init itself needs; everything else is loaded by udev from the root image."""


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
        name = path.name.split(".")[0]
        entries.append(CpioEntry.bytes(f"modules/{number:02}-{name}.ko", _module(path)))
    entries.append(CpioEntry.file("root.erofs", root_image))
    write_cpio(target, entries, epoch=SOURCE_DATE_EPOCH)
