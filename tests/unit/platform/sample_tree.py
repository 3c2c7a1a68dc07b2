"""A made-up machine: parts of /sys, /dev and /proc below one folder."""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

from vmkernel.host.block import STATE_TYPE_GUID
from vmkernel.platform.stick import ESP_TYPE_GUID

__all__ = ["ESP_GUID", "LOADER_GUID", "STATE_GUID", "SampleMachine", "gpt_bytes"]

SECTOR = 512
ESP_GUID = "11111111-2222-4333-8444-555555555555"
STATE_GUID = "66666666-7777-4888-9999-aaaaaaaaaaaa"
LOADER_GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


def gpt_bytes(partitions: list[tuple[str, str, int, int]], sectors: int = 2048) -> bytes:
    """A disk of `sectors` with (type, GUID, first sector, last sector) as its primary table."""
    table = b"".join(
        struct.pack(
            "<16s16sQQQ72s",
            uuid.UUID(kind).bytes_le,
            uuid.UUID(unique).bytes_le,
            first,
            last,
            0,
            b"",
        )
        for kind, unique, first, last in partitions
    ).ljust(128 * 128, b"\0")

    def header(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            b"EFI PART",
            0x10000,
            92,
            crc,
            0,
            1,
            sectors - 1,
            34,
            sectors - 34,
            uuid.UUID(int=1).bytes_le,
            2,
            128,
            128,
            zlib.crc32(table),
        )

    disk = bytearray(sectors * SECTOR)
    disk[SECTOR : SECTOR + 92] = header(zlib.crc32(header(0)))
    disk[2 * SECTOR : 2 * SECTOR + len(table)] = table
    return bytes(disk)


@dataclass(frozen=True)
class SampleMachine:
    """The folder and what can be put into it."""

    root: Path

    @property
    def sys(self) -> Path:
        """As /sys."""
        return self.root / "sys"

    @property
    def dev(self) -> Path:
        """As /dev."""
        return self.root / "dev"

    @property
    def proc(self) -> Path:
        """As /proc."""
        return self.root / "proc"

    def write(self, path: str, content: str | bytes) -> Path:
        """A file below the root."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def efi(self, **variables: str) -> None:
        """A machine that was started by UEFI, with what the loader left."""
        (self.sys / "firmware/efi/efivars").mkdir(parents=True, exist_ok=True)
        for name, value in variables.items():
            data = b"\x06\0\0\0" + (value + "\0").encode("utf-16-le")
            self.write(f"sys/firmware/efi/efivars/{name}-{LOADER_GUID}", data)

    def stick(self, name: str = "sda", *, usb: bool = True, serial: str = "S1") -> None:
        """A disk with an ESP and a state partition, as the build makes it."""
        bus = f"pci0/usb1/1-1/1-1:1.0/host0/{name}x" if usb else f"pci0/ata1/{name}x"
        device = f"sys/devices/{bus}"
        if usb:
            self.write("sys/devices/pci0/usb1/1-1/idVendor", "1234")
            self.write("sys/devices/pci0/usb1/1-1/serial", serial)
        self.write(f"{device}/model", "Stick")
        block = f"{device}/block/{name}"
        self.write(f"{block}/size", "2048")
        self.write(f"{block}/stat", "1 0 8 0 2 0 16 0 0 0 0")
        for number, start, size in ((1, 40, 1000), (2, 1100, 800)):
            self.write(f"{block}/{name}{number}/partition", str(number))
            self.write(f"{block}/{name}{number}/start", str(start))
            self.write(f"{block}/{name}{number}/size", str(size))
        if not (self.root / block / "device").exists():
            (self.root / block / "device").symlink_to(self.root / device)
        (self.sys / "block").mkdir(parents=True, exist_ok=True)
        (self.sys / "block" / name).symlink_to(self.root / block)
        self.write(
            f"dev/{name}",
            gpt_bytes(
                [(ESP_TYPE_GUID, ESP_GUID, 40, 1039), (STATE_TYPE_GUID, STATE_GUID, 1100, 1899)]
            ),
        )

    def pull(self, name: str) -> None:
        """Take a disk away."""
        (self.sys / "block" / name).unlink()

    def traffic(self, name: str, read_sectors: int, written_sectors: int) -> None:
        """Set a disk's counters."""
        (self.sys / "block" / name / "stat").write_text(
            f"1 0 {read_sectors} 0 2 0 {written_sectors} 0 0 0 0"
        )

    def port(self, name: str, mac: str, place: str, *, carrier: bool = True) -> None:
        """A wired port."""
        device = self.root / "sys/devices" / place
        device.mkdir(parents=True, exist_ok=True)
        folder = f"sys/class/net/{name}"
        self.write(f"{folder}/type", "1")
        self.write(f"{folder}/ifindex", "7")
        self.write(f"{folder}/flags", "0x1003")
        self.write(f"{folder}/address", mac)
        self.write(f"{folder}/carrier", "1" if carrier else "0")
        (self.root / folder / "device").symlink_to(device)
