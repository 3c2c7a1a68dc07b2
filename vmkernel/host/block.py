"""The host's disks and partitions, read from sysfs and udev's database; changes nothing."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from vmkernel.host.gpt import GptPartition, read_gpt
from vmkernel.model.volumes import SECTOR_BYTES

__all__ = ["BlockDisk", "BlockPartition", "BlockTree", "STATE_TYPE_GUID"]

STATE_TYPE_GUID = "6d696361-7374-4174-a5e5-0f1d2c3b4a59"
"""The GPT type of a stick's state partition (appliance_build/assemble/stick.py writes it)."""

_NO_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "mtdblock")


@dataclass(frozen=True)
class BlockPartition:
    name: str
    number: int
    size_bytes: int
    start_bytes: int
    device_number: str
    """`major:minor`."""
    holders: tuple[str, ...]

    @property
    def path(self) -> Path:
        return Path("/dev") / self.name


@dataclass(frozen=True)
class BlockDisk:
    """A whole disk."""

    name: str
    id: str
    model: str | None
    serial: str | None
    size_bytes: int
    sector_bytes: int
    transport: str | None
    rotational: bool
    removable: bool
    read_only: bool
    device_number: str
    holders: tuple[str, ...]
    partitions: tuple[BlockPartition, ...]

    @property
    def path(self) -> Path:
        return Path("/dev") / self.name

    @property
    def device_numbers(self) -> frozenset[str]:
        """`major:minor` of the disk and all its partitions, as mountinfo names them."""
        return frozenset({self.device_number, *(part.device_number for part in self.partitions)})

    @property
    def held(self) -> bool:
        """True if the disk or one of its partitions is part of RAID, LVM or dm-crypt."""
        return bool(self.holders) or any(part.holders for part in self.partitions)


class BlockTree:
    """Reads below `sys` (`/sys`) and `udev` (`/run/udev/data`)."""

    def __init__(
        self,
        sys: Path = Path("/sys"),
        udev: Path = Path("/run/udev/data"),
        dev: Path = Path("/dev"),
    ) -> None:
        self._sys = sys
        self._udev = udev
        self._dev = dev

    def disks(self) -> tuple[BlockDisk, ...]:
        """Every disk with a medium, by name; if ids clash, the path is appended."""
        found = []
        root = self._sys / "block"
        for name in _names(root):
            if name.startswith(_NO_DISKS) or not (root / name / "device").exists():
                continue
            with contextlib.suppress(FileNotFoundError):  # it went away meanwhile
                disk = self._disk(root / name)
                if disk.size_bytes:
                    found.append(disk)
        return tuple(self._unique(found))

    def written_read_bytes(self, disk_name: str) -> tuple[int, int]:
        """Bytes written to and read from a disk since it appeared."""
        fields = (_text(self._sys / "block" / disk_name / "stat") or "").split()
        if len(fields) < 7:
            return 0, 0
        return int(fields[6]) * SECTOR_BYTES, int(fields[2]) * SECTOR_BYTES

    def gpt(self, disk: BlockDisk) -> tuple[GptPartition, ...] | None:
        """The partition table on the disk itself; OSError if it can't be read."""
        fd = os.open(self._dev / disk.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return read_gpt(
                lambda offset, length: os.pread(fd, length, offset),
                disk.size_bytes,
                disk.sector_bytes,
            )
        finally:
            os.close(fd)

    def partition_node(self, disk: BlockDisk, number: int) -> BlockPartition | None:
        """The kernel's partition for an entry of the table."""
        return next((part for part in disk.partitions if part.number == number), None)

    def disk_of(self, device: Path) -> str | None:
        """The name of the disk that a device node (also of a partition) belongs to."""
        try:
            info = device.stat()
        except OSError:
            return None
        if not stat.S_ISBLK(info.st_mode):
            return None
        number = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
        place = (self._sys / "dev/block" / number).resolve()
        return place.parent.name if (place / "partition").exists() else place.name

    def _disk(self, place: Path) -> BlockDisk:
        name = place.name
        real = place.resolve()
        number = _text(place / "dev") or ""
        udev = self._udev_properties(number)
        serial = _serial(place) or _usb_serial(real) or udev.get("ID_SERIAL_SHORT")
        path_id = udev.get("ID_PATH") or str(real.parent.parent.relative_to(self._sys.resolve()))
        return BlockDisk(
            name=name,
            id=serial or path_id,
            model=_model(place) or udev.get("ID_MODEL"),
            serial=serial,
            size_bytes=int(_text(place / "size") or 0) * SECTOR_BYTES,
            sector_bytes=int(_text(place / "queue/logical_block_size") or SECTOR_BYTES),
            transport=_transport(name, str(real)),
            rotational=_text(place / "queue/rotational") == "1",
            removable=_text(place / "removable") == "1",
            read_only=_text(place / "ro") == "1",
            device_number=number,
            holders=_names(place / "holders"),
            partitions=tuple(
                sorted(
                    (
                        self._partition(entry)
                        for entry in place.iterdir()
                        if (entry / "partition").exists()
                    ),
                    key=lambda part: part.number,
                )
            ),
        )

    def _partition(self, place: Path) -> BlockPartition:
        return BlockPartition(
            name=place.name,
            number=int(_text(place / "partition") or 0),
            size_bytes=int(_text(place / "size") or 0) * SECTOR_BYTES,
            start_bytes=int(_text(place / "start") or 0) * SECTOR_BYTES,
            device_number=_text(place / "dev") or "",
            holders=_names(place / "holders"),
        )

    def _udev_properties(self, number: str) -> dict[str, str]:
        properties = {}
        for line in (_text(self._udev / f"b{number}") or "").splitlines():
            if line.startswith("E:"):
                key, _, value = line[2:].partition("=")
                properties[key] = value
        return properties

    def _unique(self, disks: list[BlockDisk]) -> list[BlockDisk]:
        """Cheap disks share serial numbers, but an id must name one disk or none."""
        seen: dict[str, int] = {}
        for disk in disks:
            seen[disk.id] = seen.get(disk.id, 0) + 1
        result = []
        for disk in disks:
            if seen[disk.id] > 1:
                place = (self._sys / "block" / disk.name).resolve()
                path_id = str(place.parent.parent.relative_to(self._sys.resolve()))
                fields = {**disk.__dict__, "id": f"{disk.id}@{path_id}"}
                result.append(BlockDisk(**fields))
            else:
                result.append(disk)
        return result


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def _names(path: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(entry.name for entry in path.iterdir()))
    except OSError:
        return ()


def _printable(text: str | None) -> str | None:
    if text is None:
        return None
    return "".join(c for c in text if c.isprintable()).strip() or None


def _serial(place: Path) -> str | None:
    """virtio: on the disk; NVMe and MMC: on the device; SCSI and SATA: VPD page 0x80."""
    for name in ("serial", "device/serial"):
        if text := _printable(_text(place / name)):
            return text
    try:
        page = (place / "device/vpd_pg80").read_bytes()
    except OSError:
        return None
    if len(page) < 4 or page[1] != 0x80:
        return None
    length = int.from_bytes(page[2:4], "big")
    return _printable(page[4 : 4 + length].decode("ascii", errors="replace"))


def _usb_serial(real: Path) -> str | None:
    for parent in real.parents:
        if (parent / "idVendor").exists():
            return _printable(_text(parent / "serial"))
    return None


def _model(place: Path) -> str | None:
    for name in ("device/model", "device/name"):
        if text := _printable(_text(place / name)):
            return text
    return None


def _transport(name: str, real: str) -> str | None:
    if name.startswith("nvme"):
        return "nvme"
    if name.startswith("mmcblk"):
        return "mmc"
    for mark, transport in (
        ("/usb", "usb"),
        ("/ata", "sata"),
        ("/end_device-", "sas"),
        ("/rport-", "fc"),
        ("/session", "iscsi"),
        ("/virtio", "virtio"),
    ):
        if mark in real:
            return transport
    return None
