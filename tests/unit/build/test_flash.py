"""What may be written to, and what not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance_build.builders.flash import (
    Disk,
    FlashRefusedError,
    check,
    flash,
    look_at,
    objections,
)

GIB = 1 << 30


class FakeHost:
    """A /sys/class/block, /proc and udev database with disks of our making."""

    def __init__(self, root: Path) -> None:
        self.sys = root / "sys/class/block"
        self.devices = root / "sys/devices"
        self.proc = root / "proc"
        self.udev = root / "udev"
        for folder in (self.sys, self.proc / "self", self.udev):
            folder.mkdir(parents=True)
        (self.proc / "self/mountinfo").write_text("")
        (self.proc / "swaps").write_text("Filename Type Size Used Priority\n")

    def disk(self, name: str, numbers: str, *, size: int, removable: bool, path: str) -> Path:
        device = self.devices / path
        entry = device / "block" / name
        (entry / "holders").mkdir(parents=True)
        (entry / "dev").write_text(numbers + "\n")
        (entry / "size").write_text(f"{size // 512}\n")
        (entry / "removable").write_text(f"{int(removable)}\n")
        (device / "vendor").write_text("ACME    \n")
        (device / "model").write_text("Stick 3000\n")
        (entry / "device").symlink_to(device)
        (self.sys / name).symlink_to(entry)
        return entry

    def partition(self, disk: Path, name: str, numbers: str) -> None:
        entry = disk / name
        (entry / "holders").mkdir(parents=True)
        (entry / "partition").write_text("1\n")
        (entry / "dev").write_text(numbers + "\n")
        (self.sys / name).symlink_to(entry)

    def mount(self, numbers: str, where: str) -> None:
        line = f"36 35 {numbers} / {where} rw - ext4 /dev/x rw\n"
        (self.proc / "self/mountinfo").write_text(line)

    def look(self, name: str) -> Disk:
        return look_at(Path("/dev") / name, sys_block=self.sys, proc=self.proc, udev=self.udev)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def test_a_removable_stick_is_fine(host: FakeHost) -> None:
    host.disk("sdx", "8:96", size=8 * GIB, removable=True, path="pci0/host1")
    disk = host.look("sdx")
    assert objections(disk, GIB) == []
    assert disk.model == "ACME Stick 3000"
    assert disk.size_bytes == 8 * GIB
    check(disk, GIB, None)


def test_a_disk_on_usb_counts_as_removable(host: FakeHost) -> None:
    host.disk("sdx", "8:96", size=8 * GIB, removable=False, path="pci0/usb2/2-1/host1")
    assert objections(host.look("sdx"), GIB) == []


def test_a_mounted_partition_is_named(host: FakeHost) -> None:
    disk = host.disk("sdx", "8:96", size=8 * GIB, removable=True, path="pci0/host1")
    host.partition(disk, "sdx1", "8:97")
    host.mount("8:97", r"/mnt/my\040stick")
    assert objections(host.look("sdx"), GIB) == ["sdx1 is mounted at /mnt/my stick"]


def test_swap_and_holders_count_as_use(host: FakeHost) -> None:
    disk = host.disk("sdx", "8:96", size=8 * GIB, removable=True, path="pci0/host1")
    host.partition(disk, "sdx1", "8:97")
    (disk / "sdx1/holders/dm-0").mkdir()
    (host.proc / "swaps").write_text("Filename Type Size\n/dev/sdx1 partition 100\n")
    assert objections(host.look("sdx"), GIB) == ["sdx1 is swap", "sdx1 is held by dm-0"]


def test_a_fixed_disk_needs_its_serial(host: FakeHost) -> None:
    entry = host.disk("sdx", "8:96", size=8 * GIB, removable=False, path="pci0/host1")
    disk = host.look("sdx")
    with pytest.raises(FlashRefusedError, match="no serial number"):
        check(disk, GIB, "whatever")
    (entry / "device/serial").write_text("S123\n")
    disk = host.look("sdx")
    with pytest.raises(FlashRefusedError, match="FORCE=S123"):
        check(disk, GIB, None)
    with pytest.raises(FlashRefusedError, match="FORCE=S123"):
        check(disk, GIB, "S124")
    check(disk, GIB, "S123")


def test_the_serial_may_come_from_udev(host: FakeHost) -> None:
    host.disk("sdx", "8:96", size=8 * GIB, removable=False, path="pci0/host1")
    (host.udev / "b8:96").write_text("E:ID_BUS=ata\nE:ID_SERIAL_SHORT=U77\n")
    assert host.look("sdx").serial == "U77"


def test_too_small_is_refused_even_by_force(host: FakeHost) -> None:
    entry = host.disk("sdx", "8:96", size=GIB, removable=True, path="pci0/host1")
    (entry / "device/serial").write_text("S123\n")
    with pytest.raises(FlashRefusedError, match="the image needs"):
        check(host.look("sdx"), 2 * GIB, "S123")


def test_a_partition_is_refused(host: FakeHost) -> None:
    disk = host.disk("sdx", "8:96", size=8 * GIB, removable=True, path="pci0/host1")
    host.partition(disk, "sdx1", "8:97")
    with pytest.raises(FlashRefusedError, match="name the whole disk"):
        host.look("sdx1")


def test_what_is_no_disk_is_refused(host: FakeHost, tmp_path: Path) -> None:
    with pytest.raises(FlashRefusedError, match="no block device"):
        host.look("nothing")
    image = tmp_path / "image"
    image.write_bytes(os.urandom(100))
    with pytest.raises(FlashRefusedError, match="no block device"):
        flash(image, image, force_serial=None)
