"""The disks of the test machine: QEMU's arguments for them, and making them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from appliance_build.tools.sandbox import loader_argv, qemu_environment
from tests.framework import inputs

__all__ = ["Bus", "Drive", "blank_disk", "copy_sparse", "overlay"]


class Bus(StrEnum):
    """What a drive hangs on."""

    USB = "usb"
    VIRTIO = "virtio"
    NVME = "nvme"

    def device(self, name: str, serial: str, boot: bool) -> str:
        """The value of QEMU's -device."""
        model = {
            Bus.USB: "usb-storage,bus=xhci.0,removable=on",
            Bus.VIRTIO: "virtio-blk-pci",
            Bus.NVME: "nvme",
        }[self]
        return f"{model},drive={name},id={name},serial={serial}" + (",bootindex=1" * boot)


@dataclass(frozen=True)
class Drive:
    """A disk of the test machine."""

    name: str
    path: Path
    bus: Bus
    serial: str
    format: str = "raw"
    boot: bool = False
    write_log: Path | None = None
    """The record of every write and flush of the guest (see power_cut.py)."""

    def arguments(self) -> list[str]:
        """QEMU's arguments for the drive."""
        file = f"driver=file,filename={self.path},node-name={self.name}-file"
        disk = f"driver={self.format},file={self.name}-file,node-name={self.name}-disk"
        words = ["-blockdev", file, "-blockdev", disk]
        top = f"{self.name}-disk"
        if self.write_log is not None:
            self.write_log.touch()
            words += [
                "-blockdev",
                f"driver=file,filename={self.write_log},node-name={self.name}-log",
                "-blockdev",
                f"driver=blklogwrites,file={top},log={self.name}-log,node-name={self.name}-logged",
            ]
            top = f"{self.name}-logged"
        device = self.bus.device(self.name, self.serial, self.boot)
        return [*words, "-device", device.replace(f"drive={self.name}", f"drive={top}")]


def blank_disk(path: Path, size_bytes: int) -> Path:
    """A raw disk of zeros, sparse."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


def copy_sparse(source: Path, target: Path) -> Path:
    """Copy a disk; what is zero takes no space. Returns the copy."""
    subprocess.run(
        ["cp", "--reflink=auto", "--sparse=always", str(source), str(target)],
        check=True,
        timeout=300,
    )
    return target


def overlay(base: Path, path: Path, *, base_format: str = "raw") -> Path:
    """A qcow2 disk that holds only what was written, over one that doesn't change."""
    tools = inputs.tools()
    argv = [*loader_argv(tools, "qemu-img"), "create", "-q", "-f", "qcow2"]
    argv += ["-b", str(base), "-F", base_format, str(path)]
    subprocess.run(argv, check=True, timeout=60, env=qemu_environment(tools))
    return path
