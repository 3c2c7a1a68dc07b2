"""Write the stick image to a device, and refuse what looks like somebody's disk."""

import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from appliance_build.progress import say

__all__ = ["Disk", "FlashRefusedError", "check", "flash", "look_at", "objections"]

BLOCK = 4 << 20
SECTOR = 512


class FlashRefusedError(ValueError):
    """The device is not one to write to; the message says why and what would override it."""


@dataclass(frozen=True)
class Disk:
    """What sysfs and the mount table say of a whole disk."""

    name: str
    model: str
    serial: str
    size_bytes: int
    removable: bool
    in_use: tuple[str, ...]
    """Where it or a part of it is mounted or otherwise held."""

    def __str__(self) -> str:
        words = self.model or "unknown model"
        return f"/dev/{self.name}: {words}, {self.size_bytes / 1e9:.1f} GB, serial {self.serial!r}"


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


def _on_usb(entry: Path) -> bool:
    return any("usb" in part for part in (entry / "device").resolve().parts)


def look_at(
    device: Path,
    *,
    sys_block: Path = Path("/sys/class/block"),
    proc: Path = Path("/proc"),
    udev: Path = Path("/run/udev/data"),
) -> Disk:
    """Return what is known of a device; a partition or no disk at all is refused."""
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
    )


def objections(disk: Disk, image_bytes: int) -> list[str]:
    """Return what speaks against writing an image of a size to a disk."""
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
    if not disk.serial:
        raise FlashRefusedError(f"refused: {text}; it shows no serial number to force it by")
    if force_serial != disk.serial:
        raise FlashRefusedError(f"refused: {text}; FORCE={disk.serial} overrides this")
    say(f"forced although {text}")


def _show(verb: str, done: int, total: int, started: float) -> None:
    rate = done / max(time.monotonic() - started, 0.001) / 1e6
    print(
        f"\rmica: {verb} {done * 100 // total:3d} % ({rate:.0f} MB/s)   ",
        end="",
        file=sys.stderr,
        flush=True,
    )


def _write(image: Path, device: Path, total: int) -> None:
    started = time.monotonic()
    target = os.open(device, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        with image.open("rb") as source:
            done = 0
            while block := source.read(BLOCK):
                view = memoryview(block)
                while view:
                    view = view[os.write(target, view) :]
                os.fdatasync(target)
                done += len(block)
                _show("writing", done, total, started)
        os.fsync(target)
        os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(target)
        print(file=sys.stderr)


def _compare(image: Path, device: Path, total: int) -> None:
    started = time.monotonic()
    with image.open("rb") as wanted, device.open("rb", buffering=0) as found:
        os.posix_fadvise(found.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        done = 0
        while block := wanted.read(BLOCK):
            read = b""
            while len(read) < len(block) and (more := found.read(len(block) - len(read))):
                read += more
            if read != block:
                print(file=sys.stderr)
                raise FlashRefusedError(
                    f"{device} reads back other bytes than were written, near byte {done}; "
                    "the stick is faulty"
                )
            done += len(block)
            _show("comparing", done, total, started)
    print(file=sys.stderr)


def flash(image: Path, device: Path, *, force_serial: str | None) -> None:
    """Write the image to the device with progress, read it back and compare."""
    disk = look_at(device)
    say(str(disk))
    total = image.stat().st_size
    check(disk, total, force_serial)
    _write(image, device, total)
    _compare(image, device, total)
    say(f"{device} is a Mica stick now; it can be unplugged")
