"""Write the stick image to a device, and refuse one that looks like a disk in use."""

import errno
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance_build.progress import say

__all__ = [
    "Disk",
    "FlashError",
    "FlashFailedError",
    "FlashRefusedError",
    "check",
    "flash",
    "look_at",
    "objections",
]

BLOCK = 4 << 20
SECTOR = 512


class FlashError(ValueError):
    """The stick was not written.

    FlashError
      FlashRefusedError   the device is not one to write to
      FlashFailedError    the device failed while it was written or read back
    """


class FlashRefusedError(FlashError):
    """The device must not be written; the message says why and what would override it."""


class FlashFailedError(FlashError):
    """The device failed; it is no working stick now."""


@dataclass(frozen=True)
class Disk:
    """A whole disk, as sysfs and the mount table describe it."""

    name: str
    model: str
    serial: str
    size_bytes: int
    removable: bool
    in_use: tuple[str, ...]
    """If it or a part of it is mounted or otherwise held."""
    lasting_name: str = ""
    """Of a disk without a serial number: a name that another disk doesn't get by chance."""

    @property
    def identity(self) -> str:
        """What `FORCE=` must say to mean this disk; empty if nothing distinguishes
        it from others.
        """
        return self.serial or self.lasting_name

    def __str__(self) -> str:
        words = self.model or "unknown model"
        known = f"serial {self.serial!r}" if self.serial else f"no serial, {self.lasting_name!r}"
        return f"/dev/{self.name}: {words}, {self.size_bytes / 1e9:.1f} GB, {known}"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _serial(entry: Path, udev: Path) -> str:
    for name in ("device/serial", "device/wwid", "serial"):
        if text := _read(entry / name):
            return text
    numbers = _read(entry / "dev")
    for line in _read(udev / f"b{numbers}").splitlines():
        for key in ("E:ID_SERIAL_SHORT=", "E:ID_SERIAL="):
            if line.startswith(key):
                return line.removeprefix(key)
    for parent in (entry / "device").resolve().parents:
        if (parent / "idVendor").exists():
            return _read(parent / "serial")
    return ""


def _lasting_name(entry: Path, udev: Path) -> str:
    """A link of udev's that names the medium or its place, or a loop device's file."""
    if file := _read(entry / "loop/backing_file"):
        return file
    links = [
        f"/dev/{line.removeprefix('S:')}"
        for line in _read(udev / f"b{_read(entry / 'dev')}").splitlines()
        if line.startswith(("S:disk/by-id/", "S:disk/by-path/"))
    ]
    return min(links, default="")


def _on_usb(entry: Path) -> bool:
    return any("usb" in part for part in (entry / "device").resolve().parts)


def look_at(
    device: Path,
    *,
    sys_block: Path = Path("/sys/class/block"),
    proc: Path = Path("/proc"),
    udev: Path = Path("/run/udev/data"),
) -> Disk:
    """Return what is known of a device; a partition, or anything that isn't a disk, is refused."""
    name = device.resolve().name
    entry = sys_block / name
    if not entry.exists():
        raise FlashRefusedError(f"{device} is no block device")
    if (entry / "partition").exists():
        raise FlashRefusedError(f"{device} is a partition; name the whole disk")
    parts = [name] + [path.parent.name for path in sorted(entry.resolve().glob("*/partition"))]
    in_use = []
    numbers = {_read(sys_block / part / "dev"): part for part in parts}
    for line in _read(proc / "self/mountinfo").splitlines():
        fields = line.split()
        if len(fields) > 4 and fields[2] in numbers:
            in_use.append(f"{numbers[fields[2]]} is mounted at {_unescaped(fields[4])}")
    for line in _read(proc / "swaps").splitlines()[1:]:
        if line and Path(line.split()[0]).name in parts:
            in_use.append(f"{Path(line.split()[0]).name} is swap")
    for part in parts:
        holders = sys_block / part / "holders"
        if holders.is_dir():
            in_use += [f"{part} is held by {path.name}" for path in sorted(holders.iterdir())]
    return Disk(
        name=name,
        model=" ".join(
            text for text in (_read(entry / "device/vendor"), _read(entry / "device/model")) if text
        ),
        serial=_serial(entry, udev),
        size_bytes=int(_read(entry / "size") or 0) * SECTOR,
        removable=_read(entry / "removable") == "1" or _on_usb(entry),
        in_use=tuple(in_use),
        lasting_name=_lasting_name(entry, udev),
    )


def objections(disk: Disk, image_bytes: int) -> list[str]:
    """Return the reasons against writing an image of this size to a disk."""
    found = list(disk.in_use)
    if not disk.removable:
        found.append(f"{disk.name} is not removable")
    if disk.size_bytes < image_bytes:
        found.append(f"{disk.name} has {disk.size_bytes} bytes, the image needs {image_bytes}")
    return found


def check(disk: Disk, image_bytes: int, force_serial: str | None) -> None:
    """Raise unless the disk may be written; a disk that is too small never may."""
    found = objections(disk, image_bytes)
    if not found:
        return
    text = "; ".join(found)
    if disk.size_bytes < image_bytes:
        raise FlashRefusedError(f"refused: {text}")
    if not disk.identity:
        raise FlashRefusedError(f"refused: {text}; it shows no serial number to force it by")
    if force_serial != disk.identity:
        raise FlashRefusedError(f"refused: {text}; FORCE={disk.identity} overrides this")
    say(f"forced although {text}")


class _Progress:
    """A line that counts on a terminal; elsewhere a line every tenth."""

    def __init__(self, verb: str, total: int) -> None:
        self.done = 0
        self._verb, self._total = verb, total
        self._started = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._shown = -1

    def add(self, count: int) -> None:
        self.done += count
        percent = self.done * 100 // max(self._total, 1)
        step = percent if self._on_terminal else percent // 10
        if step == self._shown:
            return
        self._shown = step
        rate = self.done / max(time.monotonic() - self._started, 0.001) / 1e6
        start, end = ("\r", "   ") if self._on_terminal else ("", "\n")
        text = f"{start}mica: {self._verb} {percent:3d} % ({rate:.0f} MB/s){end}"
        print(text, end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._on_terminal and self._shown >= 0:
            print(file=sys.stderr)


@contextmanager
def _explained(device: Path, progress: _Progress) -> Iterator[None]:
    """Convert the failure of a device to a message that names it and the place."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EBUSY and not progress.done:
            raise FlashRefusedError(f"{device} is in use by another program") from error
        if error.errno in (errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM):
            why = "it is gone (pulled out?)"
        elif error.errno == errno.ENOSPC:
            why = "it holds less than it says"
        else:
            why = error.strerror or str(error)
        raise FlashFailedError(
            f"{device} failed after {progress.done} bytes: {why}; it is no working stick now"
        ) from error
    finally:
        progress.end()


def _write(image: Path, device: Path, total: int) -> None:
    progress = _Progress("writing", total)
    with image.open("rb") as source, _explained(device, progress):
        target = os.open(device, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
        try:
            while block := source.read(BLOCK):
                view = memoryview(block)
                while view:
                    view = view[os.write(target, view) :]
                os.fdatasync(target)
                progress.add(len(block))
            os.fsync(target)
            os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(target)


def _compare(image: Path, device: Path, total: int) -> None:
    progress = _Progress("comparing", total)
    with image.open("rb") as wanted, _explained(device, progress):
        found = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(found, 0, 0, os.POSIX_FADV_DONTNEED)
            while block := wanted.read(BLOCK):
                read = b""
                while len(read) < len(block) and (more := os.read(found, len(block) - len(read))):
                    read += more
                if read != block:
                    raise FlashFailedError(_difference(device, progress.done, block, read))
                progress.add(len(block))
        finally:
            os.close(found)


def _difference(device: Path, start: int, wanted: bytes, read: bytes) -> str:
    if wanted.startswith(read):
        return f"{device} ends at byte {start + len(read)}; it holds less than it says"
    at = start + next(i for i, (a, b) in enumerate(zip(wanted, read, strict=False)) if a != b)
    return f"{device} reads back another byte than was written at {at}; the stick is faulty"


def flash(image: Path, device: Path, *, force_serial: str | None) -> None:
    """Write the image to the device with progress, read it back and compare."""
    disk = look_at(device)
    say(str(disk))
    total = image.stat().st_size
    check(disk, total, force_serial)
    _write(image, device, total)
    _compare(image, device, total)
    say(f"{device} is a Mica stick now; it can be unplugged")
