"""Snapshots of a guest that runs: its counter and its disk go back; the tree; what is refused."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from websockets.sync.client import ClientConnection

from remote_api.client.consoles.websocket import open_console
from remote_api.client.errors import OperationFailedError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework.guest_images import upload_guest
from tests.framework.hosted import HostedMica
from vmkernel.model import (
    BootSpec,
    CloudInitSpec,
    DatastoreKind,
    DatastoreSpec,
    DiskSpec,
    DisplayModel,
    Firmware,
    KernelBoot,
    NicSpec,
    SnapshotSpec,
    VmSpec,
    VmState,
    VolumeFormat,
    VolumeSpec,
)

MIB = 1 << 20
BOOT_S = 120.0


@pytest.fixture(scope="module")
def images(host: HostedMica) -> Iterator[None]:
    """The tiny guest's kernel and initrd as images of the host."""
    with host.client() as mica:
        images = upload_guest(mica, "snap-")
        yield
        for image_id in images:
            mica.delete_image(image_id)


def _spec(**other: object) -> VmSpec:
    kernel = KernelBoot(
        kernel="snap-kernel", initrd="snap-initrd", cmdline="console=ttyS0 quiet panic=-1"
    )
    return VmSpec(
        datastore="main",
        memory_bytes=256 * MIB,
        firmware=Firmware.BIOS,
        boot=BootSpec(kernel=kernel),
        display=DisplayModel.NONE,
        **other,  # type: ignore[arg-type]
    )


def _until(console: ClientConnection, pattern: str, timeout_s: float = BOOT_S) -> str:
    text = ""
    end = time.monotonic() + timeout_s
    while not re.search(pattern, text):
        left = end - time.monotonic()
        assert left > 0, f"{pattern!r} did not come:\n{text[-3000:]}"
        data = console.recv(timeout=left)
        text += data if isinstance(data, str) else data.decode(errors="replace")
    return text


def _say(mica: Mica, command: str, answer: str) -> str:
    """Type a command on the serial line; what answers it, and no earlier answer."""
    with open_console(mica, "past") as console:
        with contextlib.suppress(TimeoutError):
            while True:  # the scrollback comes at once; the guest's next tick does not
                console.recv(timeout=0.4)
        console.send(command.encode() + b"\n")
        found = re.findall(answer, _until(console, answer, 30))
    return str(found[-1])


def _tick(mica: Mica) -> int:
    with open_console(mica, "past") as console:
        return max(
            int(n) for n in re.findall(r"tick (\d+)\r?\n", _until(console, r"tick \d+\r?\n"))
        )


def _sum(mica: Mica) -> str:
    return _say(mica, "sum vda 0 65536", r"sum vda 0 65536: ([0-9a-f]{8})")


@pytest.mark.usefixtures("images")
def test_a_guest_goes_back(mica: Mica) -> None:
    mica.wait(mica.create_volume("past-disk", VolumeSpec(datastore="main", size_bytes=8 * MIB)))
    mica.create_vm("past", _spec(disks=(DiskSpec(volume="past-disk"),)))
    # Of a VM that is off: an empty disk.
    mica.wait(mica.create_snapshot("past", "empty"))
    mica.wait(mica.start_vm("past"))
    with open_console(mica, "past") as console:
        _until(console, r"tick 2\b")
    _say(mica, "write vda 0 65536 1", r"write vda 0 65536: done")
    first = _sum(mica)
    mica.wait(mica.create_snapshot("past", "early", SnapshotSpec(memory=True, quiesce=True)))
    assert mica.vm("past").status.state is VmState.RUNNING
    early = _tick(mica)
    taken = mica.snapshot("past", "early")
    assert taken.status.memory_bytes > MIB
    assert (taken.status.parent, taken.status.current) == ("empty", True)
    assert taken.status.reason == "Its memory is part of the snapshot."

    # Live, without memory, of another content.
    _say(mica, "write vda 0 65536 2", r"write vda 0 65536: done")
    second = _sum(mica)
    with pytest.raises(OperationFailedError, match="No agent is running in the guest"):
        mica.wait(mica.create_snapshot("past", "late", SnapshotSpec(quiesce=True)))
    assert "late" not in [s.id for s in mica.snapshots("past")], "nothing is left of it"
    mica.wait(mica.create_snapshot("past", "late", SnapshotSpec(quiesce=True, best_effort=True)))
    late = mica.snapshot("past", "late")
    assert (late.status.quiesced, late.status.parent) == (False, "early")
    assert late.status.reason == "No agent is running in the guest."
    _say(mica, "write vda 0 65536 3", r"write vda 0 65536: done")
    with open_console(mica, "past") as console:
        _until(console, rf"tick {early + 6}\b", 60)

    for refused in (
        lambda: mica.wait(mica.resize_volume("past-disk", 16 * MIB)),
        lambda: mica.delete_volume("past-disk"),
        lambda: mica.create_snapshot("past", "late"),
    ):
        with pytest.raises(RefusedError):
            refused()

    # Back to the memory: the counter goes on from there, with the disk of then.
    mica.wait(mica.revert_to_snapshot("past", "early"))
    vm = mica.vm("past")
    assert vm.status.state is VmState.RUNNING
    now = _tick(mica)
    assert now < early + 6, (early, now)
    assert _sum(mica) == first
    tree = {s.id: s.status for s in mica.snapshots("past")}
    assert {name: status.parent for name, status in tree.items()} == {
        "empty": None,
        "early": "empty",
        "late": "early",
    }
    assert [name for name, status in tree.items() if status.current] == ["early"]

    # One without memory: the guest starts anew, as it ran before.
    mica.wait(mica.revert_to_snapshot("past", "late"))
    assert mica.vm("past").status.state is VmState.RUNNING
    with open_console(mica, "past") as console:
        _until(console, r"MICA GUEST UP")
    assert _sum(mica) == second

    # The one in the middle goes while the guest runs; the other's parent is its parent now.
    mica.wait(mica.delete_snapshot("past", "early"))
    assert mica.snapshot("past", "late").status.parent == "empty"
    mica.wait(mica.revert_to_snapshot("past", "empty", start=False))
    assert mica.vm("past").status.state is VmState.STOPPED
    with pytest.raises(RefusedError) as caught:
        mica.delete_vm("past")
    assert "has snapshots" in str(caught.value)
    mica.wait(mica.delete_snapshot("past", "late"))
    mica.wait(mica.delete_snapshot("past", "empty"))
    mica.delete_vm("past", with_volumes=True)


def test_a_raw_disk_is_kept_where_blocks_can_be_shared(mica: Mica) -> None:
    """Else the refusal says what to do."""
    raw = VolumeSpec(datastore="main", size_bytes=MIB, format=VolumeFormat.RAW)
    mica.wait(mica.create_volume("raw-disk", raw))
    mica.create_vm("raw", VmSpec(datastore="main", disks=(DiskSpec(volume="raw-disk"),)))
    taken = mica.create_snapshot("raw", "one")
    refusal = ""
    try:
        mica.wait(taken)
    except OperationFailedError as error:
        refusal = str(error)
    if refusal:
        assert "convert it to qcow2" in refusal
        assert list(mica.snapshots("raw")) == []
    else:
        mica.wait(mica.revert_to_snapshot("raw", "one"))
        mica.wait(mica.delete_snapshot("raw", "one"))
    mica.delete_vm("raw", with_volumes=True)


def test_a_template_is_cloned_and_its_secrets_stay_hidden(mica: Mica) -> None:
    mica.wait(mica.create_volume("golden-disk", VolumeSpec(datastore="main", size_bytes=8 * MIB)))
    seed = CloudInitSpec(user="admin", password_hash="$6$salt$hash", user_data="#!/bin/sh\n:\n")
    made = mica.create_vm(
        "golden",
        VmSpec(
            datastore="main",
            firmware=Firmware.BIOS,
            display=DisplayModel.NONE,
            disks=(DiskSpec(volume="golden-disk"),),
            nics=(NicSpec(),),
            cloud_init=seed,
            template=True,
        ),
    )
    assert made.spec.cloud_init == msgspec.structs.replace(seed, password_hash="***")
    listed = next(vm for vm in mica.vms() if vm.id == "golden")
    assert listed.spec.cloud_init is not None
    assert listed.spec.cloud_init.user_data == "***"
    with pytest.raises(RefusedError) as caught:
        mica.start_vm("golden")
    assert "is a template" in str(caught.value)
    mica.wait(mica.create_snapshot("golden", "one"))
    mica.wait(mica.clone_vm("golden", "child"))
    child = mica.vm("child")
    assert child.status.uuid != made.status.uuid
    assert child.spec.nics[0].mac != made.spec.nics[0].mac
    assert list(mica.snapshots("child")) == []
    mica.wait(mica.start_vm("child"))
    mica.wait(mica.power_off_vm("child"))
    mica.delete_vm("child", with_volumes=True)
    mica.delete_vm("golden", with_volumes=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("this machine lets us mount nothing (root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_snapshots_are_deleted_on_a_full_datastore(
    host: HostedMica, mica: Mica, small_disk: Path
) -> None:
    place = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(small_disk / "store"))
    (small_disk / "store").mkdir()
    mica.wait(mica.create_datastore("small", place))
    mica.wait(mica.create_volume("tight", VolumeSpec(datastore="small", size_bytes=16 * MIB)))
    spec = replace(_spec(disks=(DiskSpec(volume="tight"),)), datastore="small", boot=BootSpec())
    mica.create_vm("tight", spec)
    for name in ("one", "two", "three"):
        mica.wait(mica.create_snapshot("tight", name, SnapshotSpec()))
    with (small_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    assert shutil.disk_usage(small_disk).free == 0
    for name in ("two", "three", "one"):
        mica.wait(mica.delete_snapshot("tight", name))
    assert list(mica.snapshots("tight")) == []
    (small_disk / "filler").unlink()
    mica.wait(mica.check_volume("tight"))
    check = mica.volume("tight").status.last_check
    assert check is not None
    assert (check.corruptions, check.snapshots) == (0, 0)
    mica.delete_vm("tight", with_volumes=True)
    mica.delete_datastore("small")
