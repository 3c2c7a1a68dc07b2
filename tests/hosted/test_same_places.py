"""A real QEMU takes up the memory of a machine whose devices came and went while it ran."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from remote_api.client.sdk import Mica
from vmkernel.model import (
    CdromSpec,
    CpuSpec,
    DiskBus,
    DiskSpec,
    Firmware,
    HotPlugSpec,
    MemorySpec,
    VmSpec,
    VmState,
    VolumeSpec,
)

MIB = 1 << 20
VOLUMES = [f"v{number}" for number in range(6)]


@pytest.fixture(autouse=True)
def _volumes(mica: Mica) -> Iterator[None]:
    for volume in VOLUMES:
        mica.wait(mica.create_volume(volume, VolumeSpec(datastore="main", size_bytes=MIB)))
    yield
    mica.wait(mica.power_off_vm("web"))
    mica.delete_vm("web", with_volumes=True)
    for left in list(mica.volumes()):
        mica.delete_volume(left.id)


def _sleeps_and_wakes(mica: Mica) -> None:
    mica.wait(mica.suspend_vm("web"))
    mica.wait(mica.resume_vm("web"))
    assert mica.vm("web").status.state is VmState.RUNNING


def test_what_came_and_went_is_where_it_was(mica: Mica) -> None:
    usb, scsi = DiskBus.USB, DiskBus.VIRTIO_SCSI
    spec = VmSpec(
        datastore="main",
        firmware=Firmware.BIOS,
        memory_bytes=128 * MIB,
        memory=MemorySpec(max_bytes=512 * MIB),
        cpus=CpuSpec(count=1, max_count=3),
        tablet=False,
        hot_plug=HotPlugSpec(disks=4, nics=4),
        disks=(DiskSpec(volume="v0", bus=usb), DiskSpec(volume="v1", bus=scsi)),
        cdroms=(CdromSpec(bus=usb),),
    )
    mica.create_vm("web", spec)
    mica.wait(mica.start_vm("web"))

    def has(*wanted: tuple[str, DiskBus]) -> None:
        known = {disk.volume: disk.key for disk in mica.vm("web").spec.disks}
        disks = [{"volume": v, "bus": bus, "key": known.get(v)} for v, bus in wanted]
        mica.patch_vm("web", {"disks": disks})

    has(("v0", usb), ("v1", scsi), ("v2", usb), ("v3", usb))
    has(("v0", usb), ("v1", scsi), ("v3", usb))  # a gap
    _sleeps_and_wakes(mica)
    has(("v0", usb), ("v1", scsi), ("v3", usb), ("v4", usb), ("v5", usb))
    has(("v3", usb), ("v4", usb), ("v5", usb))  # what it was started with goes, too
    mica.patch_vm("web", {"keyboard": True})
    _sleeps_and_wakes(mica)
    has(("v3", usb), ("v5", usb), ("v0", usb), ("v1", DiskBus.VIRTIO_BLK))
    mica.patch_vm("web", {"nics": [{}]})
    mica.patch_vm("web", {"memory_bytes": 256 * MIB})
    mica.patch_vm("web", {"memory_bytes": 512 * MIB, "cpus": {"count": 3}})
    _sleeps_and_wakes(mica)
    _sleeps_and_wakes(mica)
