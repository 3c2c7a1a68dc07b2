"""What happens to the disks of a guest that runs: they grow, move, are limited, come and go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_api.client.sdk import Mica
from remote_api.schema import (
    BootSpec,
    DatastoreKind,
    DatastoreSpec,
    DiskSpec,
    DisplayModel,
    Firmware,
    ImageFormat,
    KernelBoot,
    VmSpec,
    VolumeFormat,
    VolumeSpec,
)
from tests.framework.guest import guest_files
from tests.framework.guest.pattern import pattern_crc
from tests.framework.hosted import HostedMica, hosted_mica
from tests.framework.talk import Talk

MIB = 1 << 20


@pytest.fixture(scope="module")
def host(short_folder: Path) -> Iterator[HostedMica]:
    """A host of its own, with two datastores and the guest's images."""
    folder = short_folder / "disks"
    folder.mkdir()
    with hosted_mica(folder) as host, host.client() as mica:
        for name in ("main", "second"):
            spec = DatastoreSpec(
                kind=DatastoreKind.DIRECTORY, path=str(host.datastore_folder(name))
            )
            mica.wait(mica.create_datastore(name, spec))
        files = guest_files()
        for image, file, image_format in (
            ("kernel", files.vmlinux, ImageFormat.LINUX_KERNEL),
            ("initrd", files.initrd, ImageFormat.LINUX_INITRD),
        ):
            mica.upload_image(image, file, datastore="main", image_format=image_format)
        yield host


@pytest.fixture(scope="module")
def guest(host: HostedMica) -> Iterator[Talk]:
    """The guest `web` with one disk, running."""
    with host.client() as mica:
        mica.wait(mica.create_volume("data", VolumeSpec(datastore="main", size_bytes=64 * MIB)))
        cmdline = "console=ttyS0 quiet panic=-1 mica.load=virtio_blk,virtio_net,ahci,sr_mod"
        spec = VmSpec(
            datastore="main",
            memory_bytes=256 * MIB,
            firmware=Firmware.BIOS,
            boot=BootSpec(kernel=KernelBoot(kernel="kernel", initrd="initrd", cmdline=cmdline)),
            display=DisplayModel.NONE,
            disks=(DiskSpec(volume="data"),),
        )
        mica.create_vm("web", spec)
        mica.wait(mica.start_vm("web"))
        with Talk(mica, "web") as talk:
            talk.until("MICA GUEST UP")
            yield talk
        mica.wait(mica.power_off_vm("web"))


def _volume_file(host: HostedMica, name: str) -> Path:
    return next(host.folder.glob(f"datastores/*/volumes/{name}"))


def test_a_disk_grows_under_the_guest(mica: Mica, guest: Talk) -> None:
    assert "guest disk vda 67108864" in guest.ask("report", "MICA GUEST UP")
    mica.wait(mica.resize_volume("data", 96 * MIB))
    assert mica.volume("data").spec.size_bytes == 96 * MIB
    guest.ask("report", f"guest disk vda {96 * MIB}")


def test_a_disk_moves_while_the_guest_writes(host: HostedMica, mica: Mica, guest: Talk) -> None:
    """To another datastore and format and back, with every write of the guest in it."""
    guest.ask(f"write vda {64 * MIB} {4 * MIB} 77", "done")
    for round_, (datastore, volume_format) in enumerate(
        (("second", VolumeFormat.RAW), ("main", VolumeFormat.QCOW2))
    ):
        guest.say(f"churn vda {8 * MIB} {12 + round_}")
        mica.wait(mica.move_volume("data", datastore=datastore, volume_format=volume_format))
        volume = mica.volume("data")
        assert (volume.spec.datastore, volume.spec.format) == (datastore, volume_format)
        files = sorted(p.name for p in host.folder.glob("datastores/*/volumes/*"))
        assert files == ["data.json", f"data.{volume_format.value}"]
        guest.until("churn vda .*done")
        answer = guest.ask(f"sum vda 0 {8 * MIB}", r"sum vda .*: \w+")
        assert pattern_crc(0, 8 * MIB, 12 + round_) in answer
        assert pattern_crc(64 * MIB, 4 * MIB, 77) in guest.ask(
            f"sum vda {64 * MIB} {4 * MIB}", r"sum vda .*: \w+"
        )


def test_freed_blocks_come_back(host: HostedMica, mica: Mica, guest: Talk) -> None:
    guest.ask(f"write vda {16 * MIB} {16 * MIB} 5", "done")
    before = mica.volume("data").status.allocated_bytes
    guest.ask(f"discard vda {16 * MIB} {16 * MIB}", "discard vda: done")
    assert mica.volume("data").status.allocated_bytes <= before - 12 * MIB
