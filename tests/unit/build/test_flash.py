"""What may be written to, and what not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from appliance_build.builders.flash import (
    BLOCK,
    Disk,
    FlashFailedError,
    FlashRefusedError,
    _compare,
    _write,
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


def test_a_disk_without_serial_goes_by_a_name_that_lasts(host: FakeHost) -> None:
    entry = host.disk("sdx", "8:96", size=8 * GIB, removable=False, path="pci0/host1")
    (host.udev / "b8:96").write_text("S:disk/by-path/pci-0-x\nS:disk/by-diskseq/9\nE:A=b\n")
    disk = host.look("sdx")
    with pytest.raises(FlashRefusedError, match="FORCE=/dev/disk/by-path/pci-0-x overrides"):
        check(disk, GIB, None)
    check(disk, GIB, "/dev/disk/by-path/pci-0-x")
    (entry / "loop").mkdir()
    (entry / "loop/backing_file").write_text("/a/file\n")
    assert host.look("sdx").identity == "/a/file"
    assert "no serial, '/a/file'" in str(host.look("sdx"))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENODEV, "it is gone"),
        (errno.ENXIO, "it is gone"),
        (errno.ENOSPC, "it holds less than it says"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_device_that_goes_away_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    image, device = tmp_path / "image", tmp_path / "device"
    image.write_bytes(b"x" * (BLOCK + 1))
    device.touch()
    write = os.write

    def once(descriptor: int, data: memoryview) -> int:
        if len(data) < BLOCK:
            raise OSError(number, os.strerror(number))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", once)
    with pytest.raises(FlashFailedError, match=rf"failed after {BLOCK} bytes: {words}"):
        _write(image, device, BLOCK + 1)


def test_a_device_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> int:
        raise OSError(errno.EBUSY, "busy")

    image = tmp_path / "image"
    image.write_bytes(b"x")
    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(FlashRefusedError, match="in use by another program"):
        _write(image, tmp_path / "device", 1)


def test_a_device_that_ends_early_is_told_from_a_faulty_one(tmp_path: Path) -> None:
    image, device = tmp_path / "image", tmp_path / "device"
    image.write_bytes(b"0123456789")
    device.write_bytes(b"012345")
    with pytest.raises(FlashFailedError, match="ends at byte 6"):
        _compare(image, device, 10)
    device.write_bytes(b"012x456789")
    with pytest.raises(FlashFailedError, match="written at 3"):
        _compare(image, device, 10)
    device.write_bytes(b"0123456789and more")
    _compare(image, device, 10)


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
