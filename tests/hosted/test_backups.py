"""Backups through the API of a VM without a guest: what is written, kept, proven and restored."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from remote_api.client.backup.folder import BackupFolder
from remote_api.client.backup.making import add_point
from remote_api.client.backup.restoring import restore_volumes
from remote_api.client.errors import ConflictError, RefusedError
from remote_api.client.sdk import Mica
from remote_api.schema import BackupBody
from tests.framework.hosted import HostedMica
from vmkernel.model import (
    CloneSpec,
    DiskSpec,
    DisplayModel,
    Firmware,
    VmSpec,
    VolumeFormat,
    VolumeSpec,
)

MIB = 1 << 20


def test_a_disk_is_backed_up_and_restored(host: HostedMica, mica: Mica, tmp_path: Path) -> None:
    data = os.urandom(2 * MIB)
    spec = VolumeSpec(datastore="main", size_bytes=16 * MIB, format=VolumeFormat.RAW)
    mica.wait(mica.create_volume("disk", spec))
    mica.write_volume("disk", 3 * MIB, len(data), iter([data]))
    mica.wait(mica.move_volume("disk", volume_format=VolumeFormat.QCOW2))
    with pytest.raises(RefusedError) as refused:
        mica.write_volume("disk", 0, 4, iter([b"text"]))
    assert refused.value.code == "conflict"
    mica.create_vm(
        "idle",
        VmSpec(
            datastore="main",
            memory_bytes=64 * MIB,
            firmware=Firmware.BIOS,
            display=DisplayModel.NONE,
            disks=(DiskSpec(volume="disk"),),
        ),
    )
    folder = BackupFolder(tmp_path / "chain")
    _, full = add_point(folder, mica, "idle")  # the VM is off
    assert sum(e.length for e in full.disks[0].extents if not e.zero) == len(data)
    (checkpoint,) = mica.checkpoints("idle")
    assert checkpoint.id == full.checkpoint
    assert [(d.key, d.usable, d.dirty_bytes) for d in checkpoint.disks] == [("disk0", True, None)]
    backup = mica.begin_backup("idle")
    assert mica.vm("idle").status.state == "stopped"
    for refused_now in (mica.start_vm, mica.delete_vm):
        with pytest.raises(RefusedError, match="a backup of it is open"):
            refused_now("idle")
    with pytest.raises(RefusedError, match="open"):
        mica.check_volume("disk")
    mica.end_backup(backup)
    mica.wait(mica.start_vm("idle"))
    try:
        _, nothing = add_point(folder, mica, "idle")
        assert nothing.since == full.checkpoint
        assert nothing.disks[0].extents == ()
        assert [c.id for c in mica.checkpoints("idle")] == [nothing.checkpoint]
        backup = mica.begin_backup("idle", BackupBody(time_limit_s=10))
        assert mica.backups("idle") == (backup,)
        with pytest.raises(RefusedError) as refused:
            mica.begin_backup("idle")
        assert refused.value.code == "conflict"
        with pytest.raises(RefusedError) as refused:
            mica.patch_vm("idle", {"disks": []})
        assert "backup" in refused.value.problem.detail
        assert b"".join(mica.read_backup(backup, "disk0", 3 * MIB, 4096)) == data[:4096]
        mica.end_backup(backup)
        with pytest.raises(RefusedError) as refused:
            mica.begin_backup("idle", BackupBody(since="never"))
        assert [e.pointer for e in refused.value.problem.errors] == ["/since"]
        mica.wait(mica.power_off_vm("idle"))
        assert add_point(folder, mica, "idle")[1].since == nothing.checkpoint
        (last,) = mica.checkpoints("idle")
        mica.delete_checkpoint("idle", last.id)
        told: list[str] = []
        _, again = add_point(folder, mica, "idle", on_step=told.append)
        assert again.since is None
        assert "make a full backup" in told[0]
        # A template that others stand on; a child of it.
        mica.patch_vm("idle", {"template": True})
        mica.wait(mica.clone_vm("idle", "child", CloneSpec(linked=True)))
        base = host.folder / "datastores/main/volumes/disk.qcow2"
        kept = base.read_bytes()
        for vm in ("idle", "child"):
            _, point = add_point(BackupFolder(tmp_path / f"{vm}-linked"), mica, vm)
            assert sum(e.length for e in point.disks[0].extents if not e.zero) == len(data)
        assert base.read_bytes() == kept
        assert [c.disks[0].persistent for c in mica.checkpoints("child")] == [True]
        mica.delete_vm("child", with_volumes=True)
        mica.patch_vm("idle", {"template": False})
        mica.wait(mica.start_vm("idle"))
        assert restore_volumes(folder, mica, datastore="main", prefix="again") == ["again-disk0"]
    finally:
        mica.wait(mica.power_off_vm("idle"))
        mica.delete_vm("idle", with_volumes=True)
    assert mica.volume("again-disk0").spec.format is VolumeFormat.QCOW2
    mica.wait(mica.move_volume("again-disk0", volume_format=VolumeFormat.RAW))
    found = (host.folder / "datastores/main/volumes/again-disk0.raw").read_bytes()
    wanted = bytes(3 * MIB) + data + bytes(11 * MIB)
    assert hashlib.sha256(found).digest() == hashlib.sha256(wanted).digest()
    mica.delete_volume("again-disk0")
    assert not list(host.folder.glob("datastores/main/.incoming/*"))
    damaged = tmp_path / "chain/0001-disk0.raw"
    with damaged.open("r+b") as file:
        file.seek(4 * MIB)
        file.write(b"\0" * 512)
    with pytest.raises(ConflictError, match="damaged"):
        folder.verify()


def test_a_slow_handshake_is_waited_for(host: HostedMica, mica: Mica) -> None:
    """A busy host takes longer than the 10 s after which QEMU drops a client of itself."""
    mica.wait(mica.create_volume("slow", VolumeSpec(datastore="main", size_bytes=MIB)))
    mica.create_vm(
        "slow",
        VmSpec(
            datastore="main",
            memory_bytes=64 * MIB,
            firmware=Firmware.BIOS,
            display=DisplayModel.NONE,
            disks=(DiskSpec(volume="slow"),),
        ),
    )
    backup = mica.begin_backup("slow")
    (path,) = host.folder.rglob("nbd.sock")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.settimeout(12)
        assert client.recv(18)[:8] == b"NBDMAGIC"
        with pytest.raises(TimeoutError):
            client.recv(1)
    assert list(mica.backup_extents(backup, "disk0"))
    mica.end_backup(backup)
    mica.delete_vm("slow", with_volumes=True)
