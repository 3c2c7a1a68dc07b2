"""What is plugged into a running machine, by the builders of its command line."""

from __future__ import annotations

import pytest

from tests.unit.vm.sample import cdrom, disk, nic, plan
from vmkernel.devices import Arguments, Family
from vmkernel.devices.hotplug import (
    can_plug_disk,
    can_plug_nic,
    cdrom_medium_commands,
    dimm_commands,
    disk_commands,
    free_disk_numbers,
    free_nic_numbers,
    nic_commands,
)
from vmkernel.model import BootSpec, DiskBus, HugePages, NicModel
from vmkernel.qemu import build_arguments


@pytest.mark.parametrize("bus", [DiskBus.VIRTIO_BLK, DiskBus.NVME, DiskBus.VIRTIO_SCSI])
def test_a_disk_gets_the_place_that_it_keeps(bus: DiskBus) -> None:
    """The same device as on the command line of the next start, on a port that is there."""
    before = build_arguments(plan())
    plugged = disk_commands(disk(bus, key="disk2"), Family.Q35, tag="7", position=None)
    assert [command for command, _ in plugged] == [
        *("blockdev-add", "blockdev-add", "object-add", "blockdev-add", "device_add"),
    ]
    nodes = [arguments.get("node-name") for _, arguments in plugged]
    assert nodes[:2] == ["disk2-file-7", "disk2-format-7"]
    device = plugged[-1][1]
    if bus is not DiskBus.VIRTIO_SCSI:
        assert any(f'"id":"{device["bus"]}"' in word for word in before)
    after = build_arguments(plan(disks=(disk(bus, key="disk2"),), boot=BootSpec(order=())))
    args = Arguments()
    args.device(device["driver"], {k: v for k, v in device.items() if k != "driver"})
    assert args.words()[1] in after


def test_numbers_with_a_port() -> None:
    bus = DiskBus.VIRTIO_BLK
    assert free_disk_numbers(bus, at_start=[0, 1], spare=4, now=[0, 1, 2]) == [3, 4, 5]
    assert 8 in free_disk_numbers(
        bus, at_start=[9], spare=0, now=[9]
    )  # the first function of its slot
    assert len(free_disk_numbers(DiskBus.VIRTIO_SCSI, at_start=[], spare=0, now=[0])) == 63
    assert free_nic_numbers(Family.Q35, at_start=[0], spare=2, now=[0]) == [1, 2]
    assert len(free_nic_numbers(Family.PC, at_start=[], spare=0, now=[0])) == 15


def test_what_can_be_plugged() -> None:
    assert can_plug_disk(DiskBus.USB, Family.PC)
    assert not can_plug_disk(DiskBus.SATA, Family.Q35)
    assert not can_plug_disk(DiskBus.VIRTIO_BLK, Family.PC)
    assert can_plug_nic(NicModel.E1000E, Family.Q35)
    assert not can_plug_nic(NicModel.E1000, Family.Q35)
    assert can_plug_nic(NicModel.E1000, Family.PC)


def test_cards_media_and_memory() -> None:
    commands = nic_commands(nic(key="nic1"), Family.Q35)
    assert [command for command, _ in commands] == ["netdev_add", "device_add"]
    assert commands[1][1]["bus"] == "nic1.port"
    medium = cdrom_medium_commands(cdrom(key="cdrom1"), tag="2")
    assert [a["node-name"] for _, a in medium] == ["cdrom1-file-2", "cdrom1"]
    memory, dimm = dimm_commands(0, 128 << 20, HugePages.SIZE_2M)
    assert memory[1]["hugetlbsize"] == 2 << 20
    assert dimm[1]["memdev"] == memory[1]["id"]


def test_other_options_have_no_command() -> None:
    args = Arguments()
    args.flag("S")
    with pytest.raises(ValueError, match="running QEMU"):
        args.commands()
