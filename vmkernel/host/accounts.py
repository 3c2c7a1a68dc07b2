"""Users that exist only by number: lines in /etc/passwd and /etc/group. systemd runs a unit under a
number only if that number is an account. The appliance keeps /etc in memory, so no account survives
a power-off.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["ensure_account"]

_ETC = Path("/etc")


def ensure_account(name: str, uid: int, *, etc: Path = _ETC) -> None:
    """Make sure that an account which can't log in exists, with its own group; both have this
    number.
    """
    _ensure_line(etc / "group", name, f"{name}:*:{uid}:")
    _ensure_line(etc / "passwd", name, f"{name}:*:{uid}:{uid}::/:/usr/sbin/nologin")


def _ensure_line(path: Path, name: str, line: str) -> None:
    text = path.read_text()
    if any(known.partition(":")[0] == name for known in text.splitlines()):
        return
    if text and not text.endswith("\n"):
        text += "\n"
    temp = path.with_name(f".{path.name}.mica")
    temp.write_text(f"{text}{line}\n")
    temp.chmod(0o644)
    temp.replace(path)
