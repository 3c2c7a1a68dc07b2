"""What happens to the disks of a guest that runs: they grow, move, are limited, come and go."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_api.client.backup.folder import BackupFolder
from remote_api.client.backup.making import add_point
from remote_api.client.backup.restoring import restore_volumes
from remote_api.client.errors import ConflictError, RefusedError
from remote_api.client.sdk import Mica
from remote_api.schema import BackupBody
from tests.framework.guest.pattern import pattern, pattern_crc
from tests.framework.guest_images import upload_guest
from tests.framework.hosted import HostedMica, hosted_mica
from tests.framework.talk import Talk
from vmkernel.model import (
    BootSpec,
    CdromSpec,
    CpuSpec,
    DatastoreKind,
    DatastoreSpec,
    DiskBus,
    DiskSpec,
    DisplayModel,
    Firmware,
    ImageFormat,
    KernelBoot,
    MemorySpec,
    VmSpec,
    VolumeFormat,
    VolumeSpec,
)

MIB = 1 << 20


def _disc(path: Path, word: bytes) -> Path:
    """What passes for a CD: a volume descriptor, and a word that is only on this one."""
    path.write_bytes(word.ljust(0x8001, b"-") + b"CD001".ljust(0x8000 - 1, b"\0"))
    return path


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
        upload_guest(mica)
        for image in ("red", "blue"):
            disc = _disc(folder / f"{image}.iso", image.encode())
            mica.upload_image(image, disc, datastore="main", image_format=ImageFormat.ISO)
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
            cpus=CpuSpec(count=1, max_count=3),
            memory=MemorySpec(max_bytes=1024 * MIB),
            disks=(DiskSpec(volume="data"),),
            cdroms=(CdromSpec(image="red"), CdromSpec(bus=DiskBus.USB)),
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


def _crc(path: Path) -> str:
    return f"{zlib.crc32(path.read_bytes()[:32768]):08x}"


def test_a_disc_is_changed_and_ejected(host: HostedMica, mica: Mica, guest: Talk) -> None:
    for image in ("red", "blue", None, "red"):
        mica.patch_vm("web", {"cdroms": [{"image": image}, {"bus": "usb"}]})
        wanted = _crc(host.folder / f"{image}.iso") if image else r"(No medium|Input/output)"
        _asks_until(guest, "sum sr0 0 32768", f"sum sr0.*: {wanted}")


def test_disks_and_cards_come_and_go(mica: Mica, guest: Talk) -> None:
    mica.wait(mica.create_volume("more", VolumeSpec(datastore="main", size_bytes=24 * MIB)))
    before = mica.vm("web").spec
    nic = {"mac": "52:54:00:aa:bb:cc"}
    disks = [{"volume": "data"}, {"volume": "more"}]
    vm = mica.patch_vm("web", {"disks": disks, "nics": [nic], "keyboard": True})
    assert [d.key for d in vm.spec.disks] == ["disk0", "disk1"]
    assert vm.status.nics[0].mac == nic["mac"]
    _asks_until(guest, "report", f"guest disk vdb {24 * MIB}")
    _asks_until(guest, "report", f"guest nic \\S+ {nic['mac']}")
    guest.ask(f"write vdb 0 {MIB} 9", "write vdb .*done")
    with pytest.raises(RefusedError) as refused:
        mica.delete_volume("more")
    assert refused.value.code == "in-use"
    vm = mica.patch_vm("web", {"disks": [{"volume": "data"}], "nics": [], "keyboard": False})
    assert (vm.spec.disks, vm.spec.nics) == (before.disks, ())
    said = guest.ask("report", "MICA GUEST UP")
    assert "vdb" not in said
    assert nic["mac"] not in said
    mica.delete_volume("more")


@pytest.mark.usefixtures("guest")
def test_what_needs_a_stop_is_refused_by_its_field(mica: Mica) -> None:
    before = mica.vm("web")
    with pytest.raises(RefusedError) as refused:
        mica.patch_vm("web", {"firmware": "uefi", "display": "std", "memory_bytes": 128 * MIB})
    assert refused.value.code == "conflict"
    pointers = {error.pointer for error in refused.value.problem.errors}
    assert pointers == {"/spec/firmware", "/spec/display", "/spec/memory_bytes"}
    assert mica.vm("web") == before


def test_processors_and_memory_are_added(host: HostedMica, mica: Mica, guest: Talk) -> None:
    """Linux takes new processors up only where it knows its hypervisor, which isn't so on TCG:
    here QEMU's threads are counted; tests/boot asks a guest on KVM."""
    vm = mica.patch_vm("web", {"cpus": {"count": 3}, "memory_bytes": 512 * MIB})
    assert vm.spec.cpus.count == 3
    end = time.monotonic() + 60
    while True:
        guest.ask("online", "online: done")
        said = guest.ask("report", "MICA GUEST UP")
        kib = int(said.partition("memory_kib ")[2].split()[0])
        if kib > 400 * 1024 and _processor_threads(host) == 3:
            break
        assert time.monotonic() < end, said


def _processor_threads(host: HostedMica) -> int:
    found = 0
    for comm in Path("/proc").glob("[0-9]*/task/*/comm"):
        try:
            if comm.read_text().startswith("CPU "):
                words = (comm.parents[2] / "cmdline").read_bytes()
                found += f"{host.folder}".encode() in words and b"guest=web" in words
        except OSError:
            continue
    return found


def test_limits_hold_at_once(mica: Mica, guest: Talk) -> None:
    def seconds() -> float:
        start = time.monotonic()
        guest.ask(f"sum vda 0 {4 * MIB}", r"sum vda .*: \w+")
        guest.ask(f"write vda 0 {512 * 64} 3", "write vda .*done")
        return time.monotonic() - start

    free = seconds()
    mica.patch_vm("web", {"disks": [{"volume": "data", "limits": {"iops": {"per_s": 20}}}]})
    limited = seconds()
    mica.patch_vm("web", {"disks": [{"volume": "data", "limits": None}]})
    assert limited > free + 1.5
    assert seconds() < limited


def _asks_until(guest: Talk, command: str, pattern: str) -> None:
    """The guest's answer comes to match: it notices a changed disc or bus after a moment."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        guest.say(command)
        try:
            guest.until(pattern, 3)
        except (AssertionError, TimeoutError):
            continue
        return
    raise AssertionError(pattern)


def test_backups_of_a_guest_that_writes(
    host: HostedMica, mica: Mica, guest: Talk, tmp_path: Path
) -> None:
    """Full, then what changed; restored, each is the disk of its instant, byte by byte."""
    mica.wait(mica.create_volume("safe", VolumeSpec(datastore="main", size_bytes=32 * MIB)))
    mica.patch_vm("web", {"disks": [{"volume": "data"}, {"volume": "safe"}]})
    _asks_until(guest, "report", f"guest disk vdb {32 * MIB}")
    guest.ask(f"write vdb 0 {4 * MIB} 11", "write vdb .*done")
    folder = BackupFolder(tmp_path / "chain")
    backup = mica.begin_backup("web", BackupBody(disks=("disk1",)))
    guest.ask(f"write vdb 0 {MIB} 99", "write vdb .*done")
    old = b"".join(mica.read_backup(backup, "disk1", 0, MIB))
    assert old == pattern(0, MIB, 11), "what the guest has overwritten meanwhile"
    with pytest.raises(RefusedError) as refused:
        mica.begin_backup("web")
    assert refused.value.code == "conflict"
    mica.end_backup(backup)
    _, full = add_point(folder, mica, "web")
    assert full.since is None
    guest.ask(f"write vdb {2 * MIB} {MIB} 12", "write vdb .*done")
    guest.ask(f"discard vdb {3 * MIB} {MIB}", "discard vdb: done")
    _, changed = add_point(folder, mica, "web")
    copied = sum(e.length for d in changed.disks for e in d.extents if d.key == "disk1")
    assert MIB <= copied <= 4 * MIB
    assert [c.id for c in mica.checkpoints("web")] == [changed.checkpoint]
    guest.ask(f"write vdb 0 {MIB} 13", "write vdb .*done")
    made = restore_volumes(folder, mica, datastore="second", prefix="again")
    assert made == ["again-disk0", "again-disk1"]
    mica.wait(mica.move_volume("again-disk1", volume_format=VolumeFormat.RAW))
    data = (host.folder / "datastores/second/volumes/again-disk1.raw").read_bytes()
    wanted = pattern(0, MIB, 99) + pattern(MIB, MIB, 11) + pattern(2 * MIB, MIB, 12)
    assert data[: 3 * MIB] == wanted
    assert not any(data[3 * MIB :])
    with pytest.raises(RefusedError) as refused:
        mica.begin_backup("web", BackupBody(since="never"))
    assert refused.value.code == "conflict"
    assert not list(host.folder.glob("datastores/*/.incoming/*"))
    damaged = tmp_path / "chain/0002-disk1.raw"
    damaged.write_bytes(damaged.read_bytes().replace(b"\x0c", b"\x0d"))
    with pytest.raises(ConflictError, match="damaged"):
        folder.verify()
    for volume in made:
        mica.delete_volume(volume)


@pytest.mark.story
def test_it_wakes_as_it_has_become(host: HostedMica, mica: Mica, guest: Talk) -> None:
    """The last test of this guest: with the disk, the memory and the processors that it was given
    while it ran, on a machine that is otherwise as it was started."""
    boot = guest.ask("boot", r"boot \S+").rpartition("boot ")[2].split()[0]
    mica.wait(mica.suspend_vm("web"))
    mica.wait(mica.resume_vm("web"))
    assert _processor_threads(host) == 3
    with Talk(mica, "web") as talk:
        assert boot in talk.ask("boot", r"boot \S+"), "it started anew"
        said = talk.ask("report", "MICA GUEST UP")
        assert f"guest disk vdb {32 * MIB}" in said
        assert int(said.partition("memory_kib ")[2].split()[0]) > 400 * 1024
        talk.ask(f"write vdb 0 {MIB} 14", "write vdb .*done")
        mica.patch_vm("web", {"disks": [{"volume": "data"}]})
        assert "vdb" not in talk.ask("report", "MICA GUEST UP")
