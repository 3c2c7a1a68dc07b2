"""Clones of real disks: linked ones that run, of snapshots of a guest that runs, cut off by a kill,
sharing blocks on XFS; and a VM whose disk is broken."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance_build.tools.sandbox import ToolsSandbox
from remote_api.client.errors import ClientError, OperationFailedError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework import inputs
from tests.framework.guest_images import upload_guest
from tests.framework.hosted import HostedMica
from tests.framework.talk import Talk
from vmkernel.model import (
    Allocation,
    BootSpec,
    CheckRepair,
    CloneSpec,
    DatastoreKind,
    DatastoreSpec,
    DiskSpec,
    DisplayModel,
    Firmware,
    ImageCapture,
    ImageFormat,
    KernelBoot,
    NicSpec,
    VmSpec,
    VmState,
    VolumeFormat,
    VolumeSpec,
)

MIB = 1 << 20


@pytest.fixture
def images(mica: Mica) -> Iterator[BootSpec]:
    """The tiny guest's kernel and initrd as images of the host."""
    names = upload_guest(mica, "clone-")
    cmdline = "console=ttyS0 quiet panic=-1"
    yield BootSpec(kernel=KernelBoot(kernel=names[0], initrd=names[1], cmdline=cmdline))
    for image_id in names:
        mica.delete_image(image_id)


def _vm(mica: Mica, vm_id: str, *volumes: str, datastore: str = "main", **fields: object) -> None:
    spec = VmSpec(
        datastore=datastore,
        memory_bytes=256 * MIB,
        firmware=Firmware.BIOS,
        display=DisplayModel.NONE,
        disks=tuple(DiskSpec(volume=volume) for volume in volumes),
        **fields,  # type: ignore[arg-type]
    )
    mica.create_vm(vm_id, spec)


def _write(talk: Talk, disk: str, seed: int) -> str:
    talk.ask(f"write {disk} 0 65536 {seed}", rf"write {disk} 0 65536: done")
    return _sum(talk, disk)


def _sum(talk: Talk, disk: str) -> str:
    text = talk.ask(f"sum {disk} 0 65536", rf"sum {disk} 0 65536: [0-9a-f]{{8}}")
    return str(re.findall(rf"sum {disk} 0 65536: ([0-9a-f]{{8}})", text)[-1])


def _sum_of_new(talk: Talk, disk: str) -> str:
    """The same of a disk that the guest has yet to find."""
    for _ in range(100):
        text = talk.ask(f"sum {disk} 0 65536", rf"sum {disk}[^\n]*: .*\n")
        if found := re.findall(rf"sum {disk} 0 65536: ([0-9a-f]{{8}})", text):
            return str(found[-1])
        # There is no node yet, or one whose disk the kernel is about to add.
        assert re.search("No such (file|device)", text), text
        time.sleep(0.1)
    raise AssertionError(f"the guest does not find {disk}")


def test_linked_clones_and_clones_of_snapshots(
    mica: Mica, images: BootSpec, host: HostedMica
) -> None:
    mica.wait(mica.create_volume("gold-disk", VolumeSpec(datastore="main", size_bytes=16 * MIB)))
    _vm(mica, "gold", "gold-disk", boot=images, nics=(NicSpec(),))
    mica.wait(mica.start_vm("gold"))
    with Talk(mica, "gold") as talk:
        talk.until("tick 2")
        then = _write(talk, "vda", 1)
        mica.wait(mica.create_snapshot("gold", "then"))
        now = _write(talk, "vda", 2)
        # While it runs: its snapshot in full, and not itself.
        with pytest.raises(RefusedError, match="clone a snapshot of it"):
            mica.clone_vm("gold", "past")
        mica.wait(mica.clone_vm("gold", "past", CloneSpec(snapshot="then")))
        assert _sum(talk, "vda") == now
    assert list(mica.snapshots("past")) == []
    mica.wait(mica.power_off_vm("gold"))
    with pytest.raises(RefusedError, match="is not a template"):
        mica.clone_vm("gold", "child", CloneSpec(linked=True))
    mica.wait(mica.delete_snapshot("gold", "then"))
    mica.patch_vm("gold", {"template": True})
    for name in ("child", "other"):
        mica.wait(mica.clone_vm("gold", name, CloneSpec(linked=True)))
    child = mica.volume("child-disk0")
    assert child.status.backing == "gold-disk"
    assert child.status.allocated_bytes < MIB
    assert mica.volume("gold-disk").status.children == ("child-disk0", "other-disk0")
    assert mica.vm("child").spec.nics[0].mac != mica.vm("gold").spec.nics[0].mac
    base = host.folder / "datastores/main/volumes/gold-disk.qcow2"
    kept = base.read_bytes()

    for refused in (
        lambda: mica.delete_vm("gold", with_volumes=True),
        lambda: mica.delete_volume("gold-disk"),
        lambda: mica.resize_volume("gold-disk", 32 * MIB),
        lambda: mica.move_volume("gold-disk", volume_format=VolumeFormat.RAW),
        lambda: mica.check_volume("gold-disk", repair=CheckRepair.ALL),
        lambda: mica.create_snapshot("gold", "one"),
        lambda: mica.patch_vm("gold", {"template": False}),
    ):
        with pytest.raises(RefusedError, match="child-disk0"):
            refused()

    # One disk from the start, others plugged in: a linked one, and the copy of the snapshot.
    mica.delete_vm("other")
    mica.delete_vm("past")
    mica.wait(mica.start_vm("child"))
    with Talk(mica, "child") as talk:
        talk.until("tick 2")
        assert _sum(talk, "vda") == now
        mine = _write(talk, "vda", 3)
        # One after the other: the guest names them as it finds them.
        plugged = [{"volume": n} for n in ("child-disk0", "other-disk0", "past-disk0")]
        mica.patch_vm("child", {"disks": plugged[:2]})
        assert _sum_of_new(talk, "vdb") == now
        mica.patch_vm("child", {"disks": plugged})
        assert _sum_of_new(talk, "vdc") == then
        # A backup of one holds what comes from below.
        backup = mica.begin_backup("child")
        kept_now = b"".join(mica.read_backup(backup, "disk1", 0, 1 << 16))
        assert f"{zlib.crc32(kept_now):08x}" == now
        extents = mica.backup_extents(backup, "disk1")
        assert sum(e.length for e in extents if not e.zero) == 1 << 16
        mica.end_backup(backup)
        # It becomes whole while the guest goes on; the other one afterwards.
        mica.wait(mica.flatten_volume("child-disk0"))
        assert mica.volume("child-disk0").status.backing is None
        assert _sum(talk, "vda") == mine
        mica.wait(mica.create_snapshot("child", "live"))
    mica.wait(mica.power_off_vm("child"))
    assert base.read_bytes() == kept
    mica.wait(mica.delete_snapshot("child", "live"))
    capture = ImageCapture(volume="other-disk0", format=ImageFormat.RAW)
    mica.wait(mica.capture_image("captured", capture))
    mica.wait(mica.check_volume("other-disk0"))
    mica.wait(mica.flatten_volume("other-disk0"))
    mica.delete_vm("gold", with_volumes=True)
    assert not base.exists()
    as_raw = VolumeSpec(
        datastore="main", size_bytes=16 * MIB, format=VolumeFormat.RAW, source_volume="other-disk0"
    )
    mica.wait(mica.create_volume("compared", as_raw))
    main = host.folder / "datastores/main"
    assert (main / "volumes/compared.raw").read_bytes() == (
        main / "images/captured.raw"
    ).read_bytes()
    mica.delete_volume("compared")
    mica.delete_image("captured")
    mica.delete_vm("child", with_volumes=True)


def test_a_clone_that_is_killed_leaves_nothing(host: HostedMica, mica: Mica) -> None:
    folder = host.folder / "datastores/main"
    for name, size in (("small", MIB), ("large", 768 * MIB)):
        thick = VolumeSpec(
            datastore="main",
            size_bytes=size,
            format=VolumeFormat.RAW,
            allocation=Allocation.THICK,  # never shares blocks
        )
        mica.wait(mica.create_volume(name, thick))
    with (folder / "volumes/large.raw").open("r+b") as file:
        for _ in range(48):
            file.write(os.urandom(MIB) * 16)
    _vm(mica, "source", "small", "large")

    def files() -> set[str]:
        return {path.name for name in ("volumes", "vms") for path in (folder / name).iterdir()}

    before = files()
    mica.clone_vm("source", "copy")
    end = time.monotonic() + 30
    while not (folder / "volumes/copy-disk0.raw").exists():
        assert time.monotonic() < end
        time.sleep(0.002)
    os.kill(host.pid("vmkernel"), signal.SIGKILL)
    assert not (folder / "vms/copy").exists(), "the clone was complete before the kill"
    assert (folder / "vms/.clone-copy.json").exists()
    end = time.monotonic() + 60
    while True:
        try:
            if mica.vm("source") and files() == before:
                break
        except ClientError:
            pass
        assert time.monotonic() < end, host.logs()
        time.sleep(0.1)
    assert "copy-disk0" not in {volume.id for volume in mica.volumes()}
    assert list((folder / ".incoming").iterdir()) == []
    mica.delete_vm("source", with_volumes=True)


def test_a_broken_disk_makes_its_vm_unusable_alone(host: HostedMica, mica: Mica) -> None:
    for name in ("broken", "sound"):
        mica.wait(mica.create_volume(name, VolumeSpec(datastore="main", size_bytes=8 * MIB)))
        _vm(mica, name, name)
    path = host.folder / "datastores/main/volumes/broken.qcow2"
    good = path.read_bytes()
    path.write_bytes(b"what is this?" + good[13:])
    assert mica.vm("broken").status.state is VmState.STOPPED
    with pytest.raises((OperationFailedError, RefusedError), match="does not begin like a qcow2"):
        mica.wait(mica.start_vm("broken"))
    status = mica.vm("broken").status
    assert status.state is VmState.UNUSABLE
    assert status.reason is not None
    assert "disk0 (broken)" in status.reason
    assert mica.volume("broken").status.reason == "it does not begin like a qcow2 file"
    assert mica.vm("sound").status.state is VmState.STOPPED
    findings = {f.code for f in mica.host().status.findings}
    assert {"vm-unusable", "volume-unusable"} <= findings
    # A file that is cut off in the middle of its tables, and one that QEMU marked as corrupt, are
    # no better; the last can be mended here, the others by whoever has a good copy.
    path.write_bytes(good[: 1 << 16])
    end = time.monotonic() + 30
    while "cut off" not in (mica.volume("broken").status.reason or ""):
        assert time.monotonic() < end
        time.sleep(0.2)
    path.write_bytes(good[:79] + bytes([good[79] | 2]) + good[80:])
    while "marked as corrupt" not in (mica.volume("broken").status.reason or ""):
        assert time.monotonic() < end
        time.sleep(0.2)
    mica.wait(mica.check_volume("broken", repair=CheckRepair.ALL))
    assert mica.volume("broken").status.reason is None
    assert mica.vm("broken").status.state is VmState.STOPPED
    for name in ("broken", "sound"):
        mica.delete_vm(name, with_volumes=True)


@pytest.fixture
def xfs(tmp_path: Path, mica: Mica) -> Iterator[Path]:
    """A datastore on an XFS, made as the appliance's are."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("this machine gives us no loop devices (root and /dev/loop-control)")
    file, folder = tmp_path / "disk", tmp_path / "xfs"
    with file.open("wb") as disk:
        disk.truncate(512 * MIB)
    folder.mkdir()
    sandbox = ToolsSandbox(inputs.tools(), writable=(tmp_path,))
    sandbox.run(["mkfs.xfs", "-q", file], timeout_s=60)
    mounted = subprocess.run(
        ["mount", "-t", "xfs", "-o", "loop", str(file), str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"this machine's kernel mounts no XFS ({mounted.stderr.decode().strip()})")
    try:
        spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(folder))
        mica.wait(mica.create_datastore("xfs", spec))
        yield folder
        mica.wait(mica.delete_datastore("xfs"))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_clones_and_raw_snapshots_share_their_blocks_on_xfs(xfs: Path, mica: Mica) -> None:
    def taken() -> int:
        os.sync()
        status = os.statvfs(xfs)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    data = os.urandom(64 * MIB)
    raw = VolumeSpec(datastore="xfs", size_bytes=len(data), format=VolumeFormat.RAW)
    mica.wait(mica.create_volume("raw", raw))
    (xfs / "volumes/raw.raw").write_bytes(data)
    qcow2 = VolumeSpec(datastore="xfs", size_bytes=len(data), source_volume="raw")
    mica.wait(mica.create_volume("qcow2", qcow2))
    _vm(mica, "both", "raw", "qcow2")
    before = taken()
    assert mica.volume("raw").status.shared_bytes == 0
    mica.wait(mica.clone_vm("both", "clone"))
    assert taken() - before < 8 * MIB, "128 MiB were copied"
    for name in ("raw", "qcow2", "clone-disk0", "clone-disk1"):
        status = mica.volume(name).status
        assert status.shared_bytes is not None
        assert len(data) <= status.shared_bytes <= status.allocated_bytes
    assert (xfs / "volumes/clone-disk0.raw").read_bytes() == data
    # A raw snapshot, and a clone of it.
    mica.delete_vm("clone")
    _vm(mica, "one", "clone-disk0", datastore="xfs")
    mica.wait(mica.create_snapshot("one", "then"))
    with (xfs / "volumes/clone-disk0.raw").open("r+b") as file:
        file.write(bytes(MIB))
    mica.wait(mica.clone_vm("one", "then", CloneSpec(snapshot="then")))
    assert taken() - before < 16 * MIB
    assert (xfs / "volumes/then-disk0.raw").read_bytes() == data
    mica.wait(mica.revert_to_snapshot("one", "then"))
    assert (xfs / "volumes/clone-disk0.raw").read_bytes() == data
    mica.wait(mica.delete_snapshot("one", "then"))
    for name in ("both", "one", "then"):
        mica.delete_vm(name, with_volumes=True)
    mica.delete_volume("clone-disk1")
