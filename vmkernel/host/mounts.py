"""Mounting with mount(2) and umount2(2), and what is mounted, from /proc/self/mountinfo."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mount", "mount", "mount_text", "mounts", "unmount"]

_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_NOSYMFOLLOW = 256
"""Since Linux 5.10: symbolic links on it are not followed."""
_MS_NOATIME = 1024
_DATA = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOSYMFOLLOW | _MS_NOATIME
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo."""

    device_number: str
    target: Path
    filesystem: str
    source: str
    options: tuple[str, ...] = ()
    """The file system's options."""
    flags: tuple[str, ...] = ()
    """The mount's flags: `nodev`, `nosymfollow` and so on."""


def mounts(table: Path = Path("/proc/self/mountinfo")) -> tuple[Mount, ...]:
    """What is mounted, in order."""
    found = []
    for line in table.read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        rest = fields[fields.index("-") + 1 :]
        target = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        options, flags = tuple(rest[2].split(",")), tuple(fields[5].split(","))
        found.append(Mount(fields[2], Path(target), rest[0], rest[1], options, flags))
    return tuple(found)


def mount(
    source: Path, target: Path, filesystem: str, options: str = "", *, read_only: bool = False
) -> None:
    """Mount data: device nodes, set-id bits, programs and links have no effect. Blocks; OSError."""
    flags = _DATA
    if read_only:
        flags |= _MS_RDONLY
    _check(
        _libc().mount(
            os.fsencode(source), os.fsencode(target), filesystem.encode(), flags, options.encode()
        ),
        source,
    )


def mount_text(source: str, target: Path, filesystem: str, options: str) -> None:
    """The same for a source that isn't a path, such as an NFS export. Blocks; OSError."""
    _check(
        _libc().mount(
            source.encode(), os.fsencode(target), filesystem.encode(), _DATA, options.encode()
        ),
        source,
    )


def unmount(target: Path, *, lazily: bool = False) -> None:
    """Unmount; OSError with EBUSY if something is open there, unless `lazily`. Blocks."""
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazily else 0)
    _check(_libc().umount2(os.fsencode(target), flags), target)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    text = ctypes.c_char_p
    libc.mount.argtypes = (text, text, text, ctypes.c_ulong, text)
    libc.umount2.argtypes = (text, ctypes.c_int)
    return libc


def _check(result: int, path: Path | str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
