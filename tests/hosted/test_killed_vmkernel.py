"""A vmkernel that is killed in the middle of long work leaves nothing, and a repeat works."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_api.client.backup.folder import BackupFolder
from remote_api.client.backup.making import add_point
from remote_api.client.backup.restoring import restore_vm
from remote_api.client.errors import ClientError
from remote_api.client.sdk import Mica
from tests.framework.hosted import HostedMica
from vmkernel.model import (
    Allocation,
    DiskSpec,
    DisplayModel,
    Firmware,
    ImageCapture,
    ImageFormat,
    VmSpec,
    VolumeFormat,
    VolumeSpec,
)

MIB = 1 << 20
_BYTES = 384 * MIB


@pytest.fixture
def main(host: HostedMica) -> Path:
    """The datastore's folder."""
    return host.folder / "datastores/main"


@pytest.fixture
def full(mica: Mica, main: Path) -> str:
    """A volume whose copy takes a while."""
    spec = VolumeSpec(
        datastore="main",
        size_bytes=_BYTES,
        format=VolumeFormat.RAW,
        allocation=Allocation.THICK,
    )
    mica.wait(mica.create_volume("full", spec))
    with (main / "volumes/full.raw").open("r+b") as file:
        for _ in range(_BYTES // (16 * MIB)):
            file.write(os.urandom(MIB) * 16)
    return "full"


def _until(condition: Callable[[], object], host: HostedMica, within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while True:
        try:
            if condition():
                return
        except ClientError:
            pass  # it is starting again
        assert time.monotonic() < end, host.logs()
        time.sleep(0.002)


def _files(main: Path) -> set[str]:
    return {
        f"{name}/{path.name}"
        for name in (".incoming", "images", "volumes", "vms")
        for path in (main / name).iterdir()
    }


def test_a_capture_that_is_killed(host: HostedMica, mica: Mica, main: Path, full: str) -> None:
    before = _files(main)
    capture = ImageCapture(volume=full, format=ImageFormat.QCOW2, compress=True)
    mica.capture_image("captured", capture)
    _until(lambda: _files(main) - before, host)
    os.kill(host.pid("vmkernel"), signal.SIGKILL)
    _until(lambda: mica.volume(full) and _files(main) == before, host)
    assert [image.id for image in mica.images() if image.id == "captured"] == []
    quick = ImageCapture(volume=full, format=ImageFormat.RAW)
    mica.wait(mica.capture_image("captured", quick), timeout_s=120)
    mica.delete_image("captured")
    mica.delete_volume(full)


def test_a_restore_in_which_the_vmkernel_is_killed(
    host: HostedMica, mica: Mica, main: Path, full: str, tmp_path: Path
) -> None:
    mica.create_vm(
        "source",
        VmSpec(
            datastore="main",
            memory_bytes=64 * MIB,
            firmware=Firmware.BIOS,
            display=DisplayModel.NONE,
            disks=(DiskSpec(volume=full),),
        ),
    )
    folder = BackupFolder(tmp_path / "backup")
    add_point(folder, mica, "source")
    before = _files(main)
    failed: list[ClientError] = []

    def restore() -> None:
        with host.client() as client:
            try:
                restore_vm(folder, client, "other", new_identity=True)
            except ClientError as error:
                failed.append(error)

    restoring = threading.Thread(target=restore)
    restoring.start()
    _until((main / "volumes/other-disk0.raw").exists, host)
    os.kill(host.pid("vmkernel"), signal.SIGKILL)
    restoring.join(120)
    assert failed
    _until(lambda: mica.volume(full) and _files(main) == before, host)
    vm = restore_vm(folder, mica, "other", new_identity=True)
    assert (main / "volumes/other-disk0.raw").read_bytes() == (
        main / "volumes/full.raw"
    ).read_bytes()
    for vm_id in (vm.id, "source"):
        mica.delete_vm(vm_id, with_volumes=True)
