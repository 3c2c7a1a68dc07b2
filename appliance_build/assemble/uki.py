"""Make the UKI: one EFI executable of stub, kernel, command line, microcode and initrd."""

from dataclasses import dataclass
from pathlib import Path

from appliance_build.release.version import SOURCE_DATE_EPOCH
from appliance_build.tools.sandbox import ToolsSandbox

__all__ = ["UkiParts", "write_uki"]


@dataclass(frozen=True)
class UkiParts:
    """The files that make a UKI."""

    stub: Path
    kernel: Path
    kernel_release: str
    command_line: str
    os_release: Path
    initrd: Path
    microcode: Path | None


def write_uki(tools: Path, parts: UkiParts, target: Path) -> None:
    """Write the UKI by ukify."""
    files = [parts.stub, parts.kernel, parts.os_release, parts.initrd]
    argv: list[str | Path] = [
        "ukify",
        "build",
        f"--linux={parts.kernel}",
        f"--initrd={parts.initrd}",
        f"--cmdline={parts.command_line}",
        f"--os-release=@{parts.os_release}",
        f"--uname={parts.kernel_release}",
        f"--stub={parts.stub}",
        "--efi-arch=x64",
        f"--output={target}",
    ]
    if parts.microcode is not None:
        argv.append(f"--microcode={parts.microcode}")
        files.append(parts.microcode)
    target.unlink(missing_ok=True)
    readable = sorted({file.parent for file in files} - {target.parent})
    sandbox = ToolsSandbox(tools, readable=readable, writable=[target.parent])
    sandbox.run(argv, timeout_s=300, env={"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)})
    target.chmod(0o644)
