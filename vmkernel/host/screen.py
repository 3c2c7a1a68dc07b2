"""Whether the kernel has a screen to write to: what the firmware set up, or a driver's.

Each of /sys/class/vtconsole is a driver of a screen; one of them is bound, and without a screen
that is the `dummy device`.
"""

from __future__ import annotations

from pathlib import Path

from vmkernel.host.sysfs import SYS, read_text, subfolders

__all__ = ["has_screen"]


def has_screen(sys: Path = SYS) -> bool:
    """True if console output can be seen on a screen."""
    folder = sys / "class/vtconsole"
    return any(
        read_text(folder / name / "bind") == "1"
        and "dummy" not in (read_text(folder / name / "name") or "dummy")
        for name in subfolders(folder)
    )
