"""A datastore from anybody: what lies in it in the place of a file leads nowhere else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.unit.vm.world import World
from vmkernel.host.files import open_regular
from vmkernel.model import DiskSpec, Firmware, OperationState, VmAction
from vmkernel.vm import suspension


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


def test_a_memory_image_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"of the host")
    (tmp_path / "suspend.state.new").symlink_to(tmp_path / "victim")
    os.close(suspension.create(tmp_path))
    assert (tmp_path / "victim").read_bytes() == b"of the host"
    assert not (tmp_path / "suspend.state.new").is_symlink()
    os.mkfifo(tmp_path / "suspend.state")
    with pytest.raises(OSError, match="not a regular file"):
        suspension.open_image(tmp_path)


def test_what_is_opened_waits_for_its_data(tmp_path: Path) -> None:
    """QEMU's io_uring would answer EAGAIN on a descriptor that does not."""
    path = tmp_path / "disk"
    path.write_bytes(b"data")
    fd = open_regular(path, os.O_RDWR)
    try:
        assert os.get_blocking(fd)
    finally:
        os.close(fd)
