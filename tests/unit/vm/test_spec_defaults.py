"""What a spec leaves open, and that names stay with what they name."""

from __future__ import annotations

from msgspec.structs import replace

from vmkernel.devices.plan import number_of
from vmkernel.model import (
    CdromSpec,
    Clock,
    DiskBus,
    DiskSpec,
    GuestOs,
    NicModel,
    NicSpec,
    VmSpec,
)
from vmkernel.vm.spec.defaults import with_defaults

SPEC = VmSpec(
    datastore="main",
    disks=(DiskSpec(volume="a"), DiskSpec(volume="b", bus=DiskBus.NVME)),
    cdroms=(CdromSpec(),),
    nics=(NicSpec(), NicSpec(model=NicModel.E1000)),
)


def test_defaults_by_system() -> None:
    linux = with_defaults(SPEC)
    assert [disk.bus for disk in linux.disks] == [DiskBus.VIRTIO_BLK, DiskBus.NVME]
    assert [nic.model for nic in linux.nics] == [NicModel.VIRTIO, NicModel.E1000]
    assert linux.clock.base is Clock.UTC
    windows = with_defaults(replace(SPEC, guest_os=GuestOs.WINDOWS))
    assert [disk.bus for disk in windows.disks] == [DiskBus.SATA, DiskBus.NVME]
    assert [nic.model for nic in windows.nics] == [NicModel.E1000E, NicModel.E1000]
    assert windows.clock.base is Clock.LOCAL


def test_a_complete_spec_stays_as_it_is() -> None:
    whole = with_defaults(SPEC)
    assert with_defaults(whole) == whole
    assert with_defaults(replace(whole, guest_os=GuestOs.WINDOWS)).disks == whole.disks


def test_keys_stay_with_the_volume() -> None:
    first = with_defaults(SPEC)
    assert [disk.key for disk in first.disks] == ["disk0", "disk1"]
    fewer = with_defaults(replace(SPEC, disks=(DiskSpec(volume="b"),)), first)
    assert [disk.key for disk in fewer.disks] == ["disk1"]
    more = with_defaults(replace(SPEC, disks=(*fewer.disks, DiskSpec(volume="c"))), fewer)
    assert [disk.key for disk in more.disks] == ["disk1", "disk0"]


def test_a_given_key_is_kept() -> None:
    spec = with_defaults(replace(SPEC, nics=(NicSpec(), NicSpec(key="nic0"), NicSpec())))
    assert [nic.key for nic in spec.nics] == ["nic1", "nic0", "nic2"]


def test_numbers() -> None:
    assert [number_of(key) for key in ("disk12", "cdrom0", "nic7")] == [12, 0, 7]
