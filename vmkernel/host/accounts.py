"""Numbered users without a name's rights: lines in /etc/passwd and /etc/group.

systemd runs a unit under a number only where that number is an account. /etc lies in memory in
the appliance, so nothing outlasts a power-off.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["ensure_account"]

_ETC = Path("/etc")


def ensure_account(name: str, uid: int, *, etc: Path = _ETC) -> None:
    """Have an account that can't log in, with a group of its own; both with this number."""
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
