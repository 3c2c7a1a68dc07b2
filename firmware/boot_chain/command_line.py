"""Read the kernel's parameters from ``kernel_command_line.toml``."""

import tomllib
from pathlib import Path

__all__ = ["BOOT_CHAIN", "kernel_command_line"]

BOOT_CHAIN = Path(__file__).parent


def kernel_command_line() -> str:
    """Return the command line; an entry without a reason is refused."""
    path = BOOT_CHAIN / "kernel_command_line.toml"
    entries = tomllib.loads(path.read_text())["parameter"]
    for entry in entries:
        if set(entry) != {"text", "why"} or not entry["why"].strip():
            raise ValueError(f"{path.name}: {entry!r} must have exactly `text` and `why`")
    return " ".join(entry["text"] for entry in entries)
