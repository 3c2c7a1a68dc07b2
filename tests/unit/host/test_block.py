"""Disks, as a made-up sysfs tells them."""

from __future__ import annotations

from pathlib import Path

from vmkernel.host.block import BlockTree

GIB = 1 << 30


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def _disk(sys: Path, name: str, real: str, **files: str) -> Path:
    """A disk below its device, linked from /sys/block."""
    place = sys / "devices" / real / "block" / name
    common = {"size": str(GIB // 512), "dev": "8:0", "ro": "0", "removable": "0"}
    _write(place, {**common, "queue/rotational": "0", **files})
    (sys / "block").mkdir(exist_ok=True)
    (sys / "block" / name).symlink_to(place)
    device = sys / "devices" / real
    (place / "device").symlink_to(device)
    return device


def _tree(tmp_path: Path) -> BlockTree:
    return BlockTree(tmp_path / "sys", tmp_path / "udev", tmp_path / "dev")


def test_disks_of_every_kind_are_told_by_their_serial_number(tmp_path: Path) -> None:
    sys = tmp_path / "sys"
    _disk(sys, "vda", "pci0000:00/0000:00:04.0/virtio1", serial="VIRTIO1", dev="254:0")
    nvme = _disk(sys, "nvme0n1", "pci0000:00/0000:00:05.0/nvme/nvme0", dev="259:0")
    _write(nvme, {"serial": "  NVME1  ", "model": "Fast One"})
    sata = _disk(sys, "sda", "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0")
    (sata / "vpd_pg80").write_bytes(b"\0\x80\0\x08  SATA1 ")
    _write(sata, {"model": "Spinner"})
    usb = _disk(
        sys, "sdb", "pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host1/x/1:0:0:0", removable="1"
    )
    _write(usb.parents[3], {"idVendor": "abcd", "serial": "USB1"})
    disks = {disk.name: disk for disk in _tree(tmp_path).disks()}
    assert {name: disk.id for name, disk in disks.items()} == {
        "vda": "VIRTIO1",
        "nvme0n1": "NVME1",
        "sda": "SATA1",
        "sdb": "USB1",
    }
    assert {name: disk.transport for name, disk in disks.items()} == {
        "vda": "virtio",
        "nvme0n1": "nvme",
        "sda": "sata",
        "sdb": "usb",
    }
    assert disks["sda"].model == "Spinner"
    assert disks["sdb"].removable
    assert disks["vda"].size_bytes == GIB
    assert disks["vda"].path == Path("/dev/vda")


def test_what_is_no_disk_is_left_out(tmp_path: Path) -> None:
    sys = tmp_path / "sys"
    for name in ("loop0", "zram0", "dm-0", "md0", "sr0", "nbd0"):
        _disk(sys, name, f"virtual/{name}")
    _disk(sys, "sda", "pci/ata1", serial="S", size="0")
    assert _tree(tmp_path).disks() == ()
    assert BlockTree(tmp_path / "nothing").disks() == ()


def test_a_disk_without_a_serial_number_is_told_by_its_place(tmp_path: Path) -> None:
    _disk(tmp_path / "sys", "vda", "pci0000:00/0000:00:04.0/virtio1", dev="254:0")
    (disk,) = _tree(tmp_path).disks()
    assert disk.serial is None
    assert "0000:00:04.0" in disk.id
    _write(tmp_path / "udev", {"b254:0": "S:disk/x\nE:ID_PATH=pci-0000:00:04.0\nE:ID_X=1"})
    (disk,) = _tree(tmp_path).disks()
    assert disk.id == "pci-0000:00:04.0"


def test_a_serial_number_that_two_disks_share_names_neither(tmp_path: Path) -> None:
    sys = tmp_path / "sys"
    _disk(sys, "vda", "pci0000:00/0000:00:04.0/virtio1", serial="SAME", dev="254:0")
    _disk(sys, "vdb", "pci0000:00/0000:00:05.0/virtio2", serial="SAME", dev="254:16")
    ids = [disk.id for disk in _tree(tmp_path).disks()]
    assert len(set(ids)) == 2
    assert all(disk_id.startswith("SAME@") for disk_id in ids)


def test_partitions_and_who_holds_them(tmp_path: Path) -> None:
    part = {"partition": "1", "size": "2048", "start": "64", "dev": "8:1", "holders/md0": ""}
    files = {f"sda1/{name}": text for name, text in part.items()}
    _disk(tmp_path / "sys", "sda", "pci/ata1", serial="S", **files)
    (disk,) = _tree(tmp_path).disks()
    (partition,) = disk.partitions
    assert (partition.number, partition.size_bytes, partition.start_bytes) == (1, 1 << 20, 64 * 512)
    assert disk.device_numbers == {"8:0", "8:1"}
    assert disk.held


def test_what_went_through_a_disk(tmp_path: Path) -> None:
    _disk(tmp_path / "sys", "sda", "pci/ata1", stat="10 0 100 5 20 0 300 5 0 0 0")
    assert _tree(tmp_path).written_read_bytes("sda") == (300 * 512, 100 * 512)
    assert _tree(tmp_path).written_read_bytes("gone") == (0, 0)
