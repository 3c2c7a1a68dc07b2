"""A datastore from anybody: what lies in it in the place of a file leads nowhere else."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from pathlib import Path

import pytest

from tests.unit.vm.world import World
from vmkernel.host.files import open_regular
from vmkernel.model import (
    CloneSpec,
    DiskSpec,
    Firmware,
    Operation,
    OperationState,
    SnapshotSpec,
    VmAction,
)
from vmkernel.vm.store import saved_memory


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize("what", ["variables", "volume"])
def test_no_start_by_what_is_no_file(tmp_path: Path, kind: str, what: str) -> None:
    async def story() -> None:
        world = World(tmp_path)
        volume = world.storage.add_volume("data")
        secret = tmp_path / "secret"
        secret.write_bytes(b"of the host")
        secret.chmod(0o644)
        await world.vms.start()
        await world.create(firmware=Firmware.UEFI, disks=(DiskSpec(volume="data"),))
        place = volume.path
        if what == "variables":
            place = world.storage.vms_folder("main") / "web" / "nvram.fd"
        place.unlink(missing_ok=True)
        if kind == "link":
            place.symlink_to(secret)
        else:
            os.mkfifo(place)
        ended = await world.act(VmAction.START)
        assert ended.state is OperationState.FAILED
        assert world.launcher.launched == 0
        assert secret.stat().st_mode & 0o777 == 0o644
        await world.operations.close()
        await world.vms.stop()

    asyncio.run(story())


async def _ended(world: World, operation: Operation) -> Operation:
    return await world.operations.wait(operation.id, 20)


def _odd(place: Path, secret: Path, kind: str) -> None:
    place.unlink(missing_ok=True)
    if kind == "link":
        place.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "second name":
        os.link(secret, place)
    elif kind == "huge":
        with place.open("wb") as file:
            file.truncate(1 << 40)
    else:
        try:
            os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        except OSError:
            pytest.skip("no device can be made here")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "huge", "device"])
@pytest.mark.parametrize("work", ["clone", "snapshot", "revert", "delete"])
def test_what_lies_in_the_place_of_variables_leads_nowhere(
    tmp_path: Path, kind: str, work: str
) -> None:
    """Whatever is done with a VM that came with a datastore ends, by an error or well, soon and
    with nothing of the host copied."""

    async def story() -> None:
        world = World(tmp_path)
        secret = tmp_path / "secret"
        secret.write_bytes(b"of the host")
        await world.vms.start()
        await world.create(firmware=Firmware.UEFI)
        vms = world.storage.vms_folder("main")
        place = vms / "web" / "nvram.fd"
        _odd(place, secret, kind)
        began = time.monotonic()
        if work == "clone":
            ended = await _ended(
                world, await world.vms.clones().clone("web", "copy", CloneSpec(), actor="test")
            )
            assert ended.state is OperationState.FAILED
            assert not (vms / "copy/vm.json").exists()
        elif work == "delete":
            await world.vms.changes.delete("web", actor="test")
            assert not (vms / "web").exists()
        else:
            if work == "revert":
                place.rmdir() if kind == "folder" else place.unlink()
                place.write_bytes(b"variables")
            taken = await _ended(
                world,
                await world.vms.snapshots().create(
                    "web", "s1", SnapshotSpec(memory=False, quiesce=False), actor="test"
                ),
            )
            if work == "snapshot":
                assert taken.state is OperationState.FAILED
            else:
                assert taken.state is OperationState.SUCCEEDED
                _odd(vms / "web/snapshots/s1/nvram.fd", secret, kind)
                ended = await _ended(
                    world,
                    await world.vms.snapshots().revert("web", "s1", start=False, actor="test"),
                )
                assert ended.state is OperationState.FAILED
        assert time.monotonic() - began < 20
        assert secret.read_bytes() == b"of the host"
        copies = [p for p in vms.rglob("nvram.fd") if p.is_file() and not p.is_symlink()]
        assert all(p.stat().st_size > 1 << 30 or b"host" not in p.read_bytes() for p in copies)
        await world.operations.close()
        await world.vms.stop()

    asyncio.run(story())


@pytest.mark.parametrize("what", ["variables", "volume", "tpm"])
def test_no_guest_writes_to_a_file_with_a_second_name(tmp_path: Path, what: str) -> None:
    """What another VM's disk is called besides could be given to this one."""

    async def story() -> None:
        world = World(tmp_path)
        volume = world.storage.add_volume("data")
        theirs = tmp_path / "theirs"
        theirs.write_bytes(b"another VM's")
        await world.vms.start()
        await world.create(firmware=Firmware.UEFI, tpm=True, disks=(DiskSpec(volume="data"),))
        folder = world.storage.vms_folder("main") / "web"
        place = {
            "variables": folder / "nvram.fd",
            "volume": volume.path,
            "tpm": folder / "tpm.state",
        }[what]
        _odd(place, theirs, "second name")
        ended = await world.act(VmAction.START)
        assert ended.state is OperationState.FAILED
        assert ended.error is not None
        assert "second name" in ended.error.detail
        assert world.launcher.launched == 0
        await world.operations.close()
        await world.vms.stop()

    asyncio.run(story())


def test_a_memory_image_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"of the host")
    (tmp_path / "suspend.state.new").symlink_to(tmp_path / "victim")
    os.close(saved_memory.create(tmp_path))
    assert (tmp_path / "victim").read_bytes() == b"of the host"
    assert not (tmp_path / "suspend.state.new").is_symlink()
    os.mkfifo(tmp_path / "suspend.state")
    with pytest.raises(OSError, match="not a regular file"):
        saved_memory.open_image(tmp_path)


def test_what_is_opened_waits_for_its_data(tmp_path: Path) -> None:
    """QEMU's io_uring would answer EAGAIN on a descriptor that does not."""
    path = tmp_path / "disk"
    path.write_bytes(b"data")
    fd = open_regular(path, os.O_RDWR)
    try:
        assert os.get_blocking(fd)
    finally:
        os.close(fd)
